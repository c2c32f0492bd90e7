"""What a run tells about itself: metrics.jsonl, one line per epoch, and TensorBoard scalars."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

from vitresnas.files import JsonObject, append_line, atomic_write, read_lines, storage_errors
from vitresnas.train.processes import note_process

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"


class MetricLog:
    """Appends epochs to the log of a run that may be continuing.

    `steps` is what the checkpoint holds: later lines, written by a run that was killed before
    its checkpoint, are taken out, because those epochs are trained again.
    """

    def __init__(self, out: Path, steps: int) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of imports

        self._path = out / METRICS
        lines = read_lines(self._path)
        kept = [line for line in lines if line["step"] <= steps]
        if len(kept) < len(lines):
            text = "".join(json.dumps(line, sort_keys=True) + "\n" for line in kept)
            atomic_write(self._path, text.encode())
        note_process(out)
        self._folder = out / TENSORBOARD
        with storage_errors(self._folder):
            self._writer = SummaryWriter(str(self._folder), purge_step=len(kept) + 1)

    def write(self, record: JsonObject) -> None:
        """Log one epoch; its numbers also become scalars."""
        append_line(self._path, record)
        with storage_errors(self._folder):
            for name, value in record.items():
                if name != "epoch":
                    self._writer.add_scalar(
                        name.replace("holdout_", "holdout/"), value, record["epoch"]
                    )
            self._writer.flush()

    def close(self) -> None:
        with storage_errors(self._folder):
            self._writer.close()


@contextlib.contextmanager
def metric_log(out: Path, steps: int) -> Iterator[MetricLog]:
    """The log of a run in `out`, closed however what is inside ends."""
    with _told_once():
        log = MetricLog(out, steps)
        try:
            yield log
        except BaseException:
            with contextlib.suppress(Exception):  # what ended it is what there is to tell
                log.close()
            raise
        log.close()


@contextlib.contextmanager
def _told_once() -> Iterator[None]:
    """TensorBoard's thread prints what ended it, and the next write raises the same."""
    before = threading.excepthook

    def tell(ended: threading.ExceptHookArgs) -> None:
        if type(ended.thread).__name__ != "_AsyncWriterThread":
            before(ended)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before
