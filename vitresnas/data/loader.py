"""TrainingLoader: the batches of one epoch, the same whatever the number of workers."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitresnas.data.augmentation import Augmentation, BatchAugmentation, image_transform
from vitresnas.data.sampling import SHUFFLED, check_sampling, showings
from vitresnas.data.share import WHOLE, Share
from vitresnas.data.streams import generator, seeded
from vitresnas.data.training_images import TrainingImages
from vitresnas.data.unreadable import tolerate
from vitresnas.errors import DataError


class TrainingLoader:
    """Shuffled, augmented, normalised batches on `device`, or this process's share of them.

    Shuffled, images are drawn without replacement; what does not fill a batch is left out of that
    epoch (a set smaller than one batch is repeated to fill it). Balanced, every class is shown
    equally often (sampling.py); an epoch has as many steps either way.
    """

    def __init__(
        self,
        train: TrainingImages,
        augmentation: Augmentation,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        workers: int = 0,
        share: Share = WHOLE,
        sampling: str = SHUFFLED,
    ) -> None:
        check_sampling(sampling)
        self.batch_size = batch_size
        self.share = share
        self.stand_ins = 0  # images that the batch given out last lacks: they cannot be read
        self._named: set[str] = set()  # of these, the ones that were told of
        self.steps_per_epoch = max(1, len(train) // batch_size)
        self._train = train
        self._seed = seed
        self._device = device
        self._workers = workers
        self._sampling = sampling
        # Where decoded images are held, what needs no Pillow is done to whole batches.
        on_batches = train.fits_in_memory and not augmentation.policy
        self._augment = BatchAugmentation(augmentation, len(train), seed, everything=on_batches)
        self._transform = None if on_batches else image_transform(augmentation, train.size)
        # Decoded here, so that workers share them. Without a per-image step they move to the
        # device once and for all.
        pixels = train.pixels
        resident = pixels if self._transform is None else None
        self._resident = None if resident is None else resident.to(device)
        self._labels = train.labels.to(device)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of steps `first` to `steps_per_epoch`.

        Images (B / processes, 3, S, S) float, labels (B / processes,) int64.
        """
        order = self._order(epoch)[first:]
        for step, (shown_B, read) in enumerate(self._read(order, epoch), start=first):
            here = self.share.stream(step)
            images_BCHW = self._augment(read.pixels.to(self._device), shown_B, epoch, here)
            # Shown again, an image that cannot be read is still one.
            stands_in_B = read.positions != shown_B % len(self._train)
            self.stand_ins = int((stands_in_B & (shown_B < len(self._train))).sum())
            yield images_BCHW, self._labels[read.positions.to(self._device)]

    def _order(self, epoch: int) -> list[Tensor]:
        """Which showings (sampling.py) this process reads, step by step."""
        total = self.steps_per_epoch * self.batch_size
        rng = generator(self._seed, "order", epoch)
        shown = showings(self._sampling, self._train.labels, total, rng)
        batches = shown.view(self.steps_per_epoch, self.batch_size)
        return [self.share.of_batch(batch_B) for batch_B in batches]

    def _read(self, order: list[Tensor], epoch: int) -> Iterator[tuple[Tensor, _Batch]]:
        """Each batch's showings, and what was read for them."""
        train = self._train
        if self._resident is not None:
            for shown_B in order:
                indices = shown_B % len(train)
                pixels = self._resident[indices.to(self._device)]
                yield shown_B, _Batch(pixels, train.positions[indices])
            return
        loader: DataLoader[Any] = DataLoader(
            _EpochImages(self._train, self._transform, self._seed, epoch),
            batch_sampler=[shown_B.tolist() for shown_B in order],
            num_workers=self._workers,
            # Forked, they share what is held in memory; Python 3.14 would copy it to each.
            multiprocessing_context="fork" if self._workers else None,
            collate_fn=_collate,
            pin_memory=self._device.type == "cuda",
            worker_init_fn=_outlive_a_request_to_stop,
        )
        with _no_request_to_stop():
            batches = iter(loader)  # starts the workers
        for shown_B, batch in zip(order, batches, strict=True):
            if isinstance(batch, DataError):
                raise batch
            new = [said for said in dict.fromkeys(batch.complaints) if said not in self._named]
            self._named.update(new)
            share = train.unreadable_share
            tolerate(new, len(train), share, "training images", read_by_all=False)
            yield shown_B, batch


@contextlib.contextmanager
def _no_request_to_stop() -> Iterator[None]:
    """SIGTERM waits, also in processes started inside, until they have said what to do with it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _outlive_a_request_to_stop(worker: int) -> None:
    """SLURM sends SIGTERM to all: the trainer then finishes its step, for which it needs images."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


class _Batch(NamedTuple):
    """uint8 (B, 3, S, S), the positions they come from (B,), and why some are not those asked for.

    A worker would wrap an exception into a traceback; as a sentence it arrives whole.
    """

    pixels: Tensor
    positions: Tensor
    complaints: tuple[str, ...] = ()


class _EpochImages(Dataset[Any]):
    """Per-image augmentation, seeded by (seed, epoch, showing)."""

    def __init__(self, train: TrainingImages, transform: Any, seed: int, epoch: int) -> None:
        self._train, self._transform = train, transform
        self._seed, self._epoch = seed, epoch

    def __len__(self) -> int:
        return len(self._train)

    def __getitem__(self, shown: int) -> tuple[Tensor, int, str] | DataError:
        index = shown % len(self._train)
        try:
            if self._transform is None:
                return self._train.square(index)
            found = self._train.find(index)
            with seeded(self._seed, "image", self._epoch, shown):
                pixels = torch.as_tensor(self._transform(found.image))
            return pixels, found.position, found.complaint
        except DataError as error:
            return error


def _collate(items: list[tuple[Tensor, int, str] | DataError]) -> _Batch | DataError:
    whole = [item for item in items if not isinstance(item, DataError)]
    for item in items:
        if isinstance(item, DataError):
            return item
    pixels, positions, complaints = zip(*whole, strict=True)
    said = tuple(complaint for complaint in complaints if complaint)
    return _Batch(torch.stack(pixels), torch.tensor(positions), said)
