"""What is done about a setback: back to a good state, and past the steps that led to it.

A run that repeats the same steps meets the same trouble, so the step that went wrong is left out;
if trouble comes again soon, so are the steps that led to it. Which steps are left out depends on
where the trouble showed and on nothing else, not on when checkpoints were written: a run that is
killed and resumed ends like one that was not. The list is rollbacks.jsonl.
"""

from __future__ import annotations

from pathlib import Path

from vitresnas.doors import say
from vitresnas.errors import TrainingDiverged
from vitresnas.files import append_line, read_lines
from vitresnas.train.checkpoints import REACH, drop_after
from vitresnas.train.distributed import World
from vitresnas.train.watch import Setback

ROLLBACKS = "rollbacks.jsonl"
WINDOWS = (1, 8, REACH)  # steps left out the first, second and third time within REACH steps

CURE = "lower the learning rate (--learning-rate) or train with --dtype fp32, in another --out"


class Rollbacks:
    """The steps of a run that are left out; the leading process writes the list."""

    def __init__(self, out: Path, world: World) -> None:
        self._out, self._leads = out, world.leads
        self._records = world.told(lambda: read_lines(out / ROLLBACKS))

    def leave_out(self, step: int) -> bool:
        return any(record["first"] <= step <= record["last"] for record in self._records)

    def add(self, setback: Setback) -> None:
        """Go back behind the setback: remove what was saved since, and note what to leave out.

        Raises TrainingDiverged where that has been tried often enough, StorageError.
        """
        near = [r for r in self._records if abs(setback.step - r["last"]) < REACH]
        if len(near) == len(WINDOWS):
            raise TrainingDiverged(
                f"{setback.what}, and going back {len(near)} times within {REACH} steps did not "
                f"help: {CURE}; earlier checkpoints are untouched"
            )
        first = max(0, setback.step - WINDOWS[len(near)] + 1)
        record = {"first": first, "last": setback.step, "reason": setback.what}
        self._records.append(record)
        if self._leads:
            left_out = f"leaving out steps {first} to {setback.step}"
            say(f"{setback.what}: going back to the last good state and {left_out}")
            drop_after(self._out, first)
            append_line(self._out / ROLLBACKS, record)
