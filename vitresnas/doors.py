"""What every command shares: errors of ours in one sentence, exit codes, JSON on stdout alone."""

from __future__ import annotations

import argparse
import errno
import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitresnas.errors import InputError, StorageError, VitresnasError
from vitresnas.files import storage_errors

INTERRUPTED = 130
BROKEN_PIPE = 141  # what a shell reports of a program that wrote to a closed pipe

# A thread that waits for another one spins this often before it sleeps (GNU OpenMP): about 0.5 ms.
# The default of 300,000 burns whole time slices that the other thread is waiting for. Measured on 2
# cores, a network of 6.4 ms: alone 6.5 ms with 20,000, 8.0 with 2,000, 12.4 with 200; beside three
# busy processes 1.3 s with the default, 25 ms with 20,000.
_SPINS = "20000"

Main = Callable[[Sequence[str] | None], int]


def door(main: Main) -> Callable[..., int]:
    """Make `main(argv=None) -> int` end with one sentence and an exit code, never a traceback.

    0 done, 2 bad usage or input, 3 unreachable target, 4 target missed or undecided,
    130 interrupted, 141 nobody reads the output.
    """

    @functools.wraps(main)
    def guarded(argv: Sequence[str] | None = None) -> int:
        spin_briefly()
        try:
            try:
                return main(argv)
            except OSError as error:
                if error.errno == errno.EPIPE:  # `vitresnas ... | head`: nobody listens any more
                    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                    return BROKEN_PIPE
                with storage_errors(Path(error.filename or "the output")):
                    raise
        except VitresnasError as error:
            rank = Rank.here()
            who = "error" if rank.leads else f"error in process {rank.rank}"
            print(f"{who}: {error}", file=sys.stderr)
            return error.exit_code
        except KeyboardInterrupt:
            if Rank.here().leads:
                print("interrupted: run the same command again to continue", file=sys.stderr)
            return INTERRUPTED

    return guarded


@dataclass(frozen=True)
class Rank:
    """Which of `size` processes this is, and which of this machine's; torchrun starts several that
    are one command."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @classmethod
    def here(cls) -> Rank:
        """As torchrun tells it; one process alone where nothing is told."""

        def told(name: str, alone: int) -> int:
            text = os.environ.get(name, "")
            return int(text) if text.isdecimal() else alone

        return cls(told("RANK", 0), told("WORLD_SIZE", 1), told("LOCAL_RANK", 0))

    @property
    def leads(self) -> bool:
        """Whether this process speaks for its command."""
        return self.rank == 0


def spin_briefly() -> None:
    """Keep waiting threads from burning shared cores; has an effect before torch is imported only.

    A setting of the user's own (GOMP_SPINCOUNT, OMP_WAIT_POLICY) stands.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that keeps the layout of examples and prints usage errors in our words."""

    def __init__(self, *, example: str, **options: Any) -> None:
        super().__init__(
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"example:\n  {example}",
            allow_abbrev=False,
            **options,
        )

    def error(self, message: str) -> Any:
        raise InputError(f"{message}; see {self.prog} --help")


def print_json(document: Mapping[str, Any]) -> None:
    """The result for programs: one JSON document on stdout.

    Sorted as files are, so that a result just made and one read back print alike.
    """
    try:
        print(json.dumps(document, indent=1, sort_keys=True, allow_nan=False), flush=True)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        raise StorageError(f"cannot write the result to stdout ({error.strerror})") from error


def rows_of(rows: Iterable[tuple[str, str]], width: int = 13) -> list[str]:
    """The lines below a summary's first one: a word, then what there is to say."""
    return [f"  {word:<{width}} {what}" for word, what in rows]


def say(message: str = "") -> None:
    """A line for people: stderr, so that stdout stays clean for --json."""
    print(message, file=sys.stderr, flush=True)
