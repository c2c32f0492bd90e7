"""Make the replay: score every network of a small space, image by image, once.

    vitresnas train --recipe cifar-nano-quick-supernet --data CIFAR10 --out supernet
    python bench/replay/make.py --supernet supernet --data CIFAR10
    python bench/replay/make.py --table latency_table.json      adds prices to what is there

An interrupted run goes on with the same command.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vitresnas.doors import Parser, door, say
from vitresnas.errors import InputError, MismatchError
from vitresnas.files import JsonObject, atomic_path, digest, read_json
from vitresnas.latency import load_tables
from vitresnas.progress import Progress
from vitresnas.search.replay import Replay, saturated
from vitresnas.space import SPACES, SearchSpace, StageChoices, macs, parameters
from vitresnas.space.coding import decode, every_code

HERE = Path(__file__).resolve().parent
REPLAY = HERE / "cifar-nano.npz"
IMAGES = 2000
SEED = 0
NETWORKS_PER_CHUNK = 144
IMAGES_PER_PASS = 250  # activations of a pass stay in the processor's caches

# A part of cifar-nano that is small enough to be known entirely: the ends of most of its widths,
# depth free in every stage, MLPs free block by block in the middle one.
SPACE = replace(
    SPACES["cifar-nano"],
    name="cifar-nano-replay",
    stages=(
        StageChoices((64, 48, 32), 16, 4, heads=(4,), hidden=(192,), skippable=(2,)),
        StageChoices((128, 64), 16, 4, heads=(6,), hidden=(512, 256), skippable=(2, 4)),
        StageChoices((256, 128), 32, 4, heads=(6,), hidden=(768,), skippable=(2, 4)),
    ),
)


@door
def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(
        prog="bench/replay/make.py",
        description=__doc__.splitlines()[0],
        example="python bench/replay/make.py --supernet supernet --data CIFAR10",
    )
    parser.add_argument("--supernet", type=Path, help="a super-network of cifar-nano")
    parser.add_argument("--data", help="what it was trained on")
    parser.add_argument("--table", type=Path, help="add the prices of these latency tables")
    parser.add_argument("--out", type=Path, default=REPLAY)
    parser.add_argument("--threads", type=int, default=1, help="networks scored at a time")
    arguments = parser.parse_args(argv)
    if (arguments.supernet is None) != (arguments.data is None):
        raise InputError("a super-network is scored on its data: give --supernet and --data")
    if arguments.supernet is None and arguments.table is None:
        raise InputError("nothing to do: give --supernet and --data, or --table")
    if arguments.supernet is not None:
        made = make(arguments.supernet, arguments.data, arguments.out, arguments.threads)
        made.save(arguments.out)
    if arguments.table is not None:
        priced(Replay.load(arguments.out), arguments.table).save(arguments.out)
    say(f"wrote {arguments.out} ({arguments.out.stat().st_size / 1e6:.1f} MB)")
    return 0


def make(supernet: Path, data: str, out: Path, threads: int) -> Replay:
    """Score what is not scored yet, and put everything together."""
    source = open_source(supernet, data)
    chunks = out.with_name(out.name + ".chunks")
    codes = np.array(list(every_code(source.space)), dtype=np.uint8)
    starts = range(0, len(codes), NETWORKS_PER_CHUNK)
    parts = [codes[start : start + NETWORKS_PER_CHUNK] for start in starts]
    paths = [chunks / f"{source.id}-{number}.npz" for number in range(len(parts))]
    missing = [place for place, path in enumerate(paths) if not path.exists()]
    if missing:
        score(source, [(parts[place], paths[place]) for place in missing], len(parts), threads)
    found = [_read_chunk(path) for path in paths]
    exact = np.concatenate([chunk["log_likelihoods"] for chunk in found])
    short = saturated(exact)
    errors = np.abs(short.mean(axis=1, dtype=np.float64) - exact.mean(axis=1, dtype=np.float64))
    networks = [decode(source.space, code.tolist()) for code in codes]
    replay = Replay(
        space=source.space,
        codes=codes,
        log_likelihoods=short,
        correct=np.concatenate([chunk["correct"] for chunk in found]),
        labels=source.labels.astype(np.uint8),
        macs=np.array([macs(network) for network in networks]),
        parameters=np.array([parameters(network) for network in networks]),
        about={**source.about, "largest_rounding_error_of_a_mean": float(errors.max())},
    )
    for path in paths:
        path.unlink()
    chunks.rmdir()
    return replay


def priced(replay: Replay, path: Path) -> Replay:
    """With the prices of every table in the file, by the words for its condition."""
    prices = dict(replay.prices)
    for table in load_tables(path):
        networks = (replay.network(row) for row in range(len(replay)))
        prices[str(table.condition)] = np.array(
            [table.images_per_second(network) for network in networks]
        )
    command = f"python bench/replay/make.py --table {path}"
    return replace(replay, prices=prices, about={**replay.about, "priced_by": command})


@dataclass(frozen=True, eq=False)
class Source:
    """A super-network and the hold-out images it is scored on, in a random order."""

    supernet: Any  # a Supernet; torch waits until something is to be scored
    space: SearchSpace
    images_BCHW: Any
    labels: npt.NDArray[np.int64]
    about: JsonObject

    @property
    def id(self) -> str:
        return digest({**self.about, "space": self.space.id, "chunk": NETWORKS_PER_CHUNK})[:12]


def open_source(path: Path, spec: str) -> Source:
    from vitresnas.data import load_data
    from vitresnas.data.image_set import normalise
    from vitresnas.data.splits import draw_stratified
    from vitresnas.data.streams import stream
    from vitresnas.supernet.directory import CARD, WEIGHTS, load_supernet

    nano = SPACES["cifar-nano"]
    data = load_data(spec, image_size=nano.image_size)
    classes = len(data.class_names)
    supernet = load_supernet(path, space=nano.with_data(classes=classes))
    card = read_json(path / CARD, "supernet_card")
    if card["data"]["id"] != data.id:
        raise MismatchError(f"{path} was trained on {card['data']}, not on {data.name} ({data.id})")
    drawn, _ = draw_stratified(data.holdout.labels.numpy(), IMAGES, SEED, "replay")
    # Every first part of a random order is a fair sample: racing looks at such parts.
    order = np.random.default_rng(stream(SEED, "replay", "order")).permutation(drawn)
    about = {
        "command": "python bench/replay/make.py --supernet SUPERNET --data CIFAR10",
        "trained_by": "vitresnas train --recipe cifar-nano-quick-supernet --data CIFAR10 "
        "--out SUPERNET",
        "supernet": hashlib.sha256((path / WEIGHTS).read_bytes()).hexdigest()[:16],
        "run": card["run"],
        "scores": {name: card[name] for name in ("holdout", "test")},
        "data": {"name": data.name, "id": data.id, "holdout_images": len(data.holdout)},
        "seed": SEED,
    }
    return Source(
        supernet=supernet,
        space=SPACE.with_data(classes=classes),
        images_BCHW=normalise(data.holdout.images[order]),
        labels=data.holdout.labels.numpy()[order],
        about=about,
    )


Part = tuple[npt.NDArray[np.uint8], Path]


def score(source: Source, parts: Sequence[Part], of: int, threads: int) -> None:
    """Score chunks of networks and write each where it belongs."""
    import torch
    from shared_pass import SharedPass

    def networks(codes: npt.NDArray[np.uint8]) -> list[Any]:
        return [decode(source.space, code.tolist()) for code in codes]

    torch.set_num_threads(1)
    labels_B = torch.from_numpy(source.labels)
    run = SharedPass(source.supernet, (n for codes, _ in parts for n in networks(codes)))

    def score_one(part: Part) -> None:
        codes, path = part
        likelihoods = np.empty((len(codes), len(labels_B)))
        correct = np.empty((len(codes), len(labels_B)), dtype=bool)
        for start in range(0, len(labels_B), IMAGES_PER_PASS):
            batch = slice(start, start + IMAGES_PER_PASS)
            found = run(networks(codes), source.images_BCHW[batch], labels_B[batch])
            for row, (likelihoods_B, correct_B) in enumerate(found):
                likelihoods[row, batch], correct[row, batch] = likelihoods_B, correct_B
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez(file, log_likelihoods=likelihoods.astype(np.float32), correct=correct)

    watch = Progress("scoring", of, unit="chunks")
    with watch, ThreadPoolExecutor(threads) as pool:
        for done, _ in enumerate(pool.map(score_one, parts), start=of - len(parts) + 1):
            watch(done)


def _read_chunk(path: Path) -> dict[str, npt.NDArray[Any]]:
    with np.load(path, allow_pickle=False) as found:
        return {name: found[name] for name in found.files}


if __name__ == "__main__":
    sys.exit(main())
