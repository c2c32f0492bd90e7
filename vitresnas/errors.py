"""Every error of ours: one sentence that names what, the value found, and how to fix it.

VitresnasError                exit 2   anything this package raises on purpose
├── InputError                exit 2   what was given cannot be used
│   ├── FileFormatError       exit 2   a file with the wrong schema, field, or checksum
│   ├── SpaceError            exit 2   an architecture or a space that breaks its own rules
│   ├── DataError             exit 2   images or labels that cannot be learned from
│   ├── MismatchError         exit 2   a table, super-network or run that belongs to something else
│   ├── MissingLatency        exit 2   a piece that the latency table does not hold
│   └── BackendError          exit 2   a backend chosen by name that cannot run
├── TrainingDiverged          exit 2   a loss that is no number or spikes, again and again
├── WorkerLost                exit 2   a process of the run that is gone
├── StorageError              exit 2   a disk that is full or a folder that cannot be written
└── UnreachableTarget         exit 3   no architecture of the space can meet the target
"""

from __future__ import annotations


class VitresnasError(Exception):
    """Base of all; doors print its message without a traceback and exit with `exit_code`."""

    exit_code = 2


class InputError(VitresnasError):
    """What the user gave cannot be used."""


class FileFormatError(InputError):
    """A file whose schema, fields or checksum are not what they should be."""


class SpaceError(InputError):
    """An architecture or a search space that breaks its own rules."""


class DataError(InputError):
    """Images or labels that cannot be learned from."""


class MismatchError(InputError):
    """A latency table, super-network or run directory that belongs to something else."""


class MissingLatency(InputError):
    """A piece of an architecture that the latency table does not price."""


class BackendError(InputError):
    """A backend that was chosen by name and cannot run; the message lists the reasons."""


class TrainingDiverged(VitresnasError):
    """Losses or scores that are no numbers, or spikes, that going back did not mend."""


class WorkerLost(VitresnasError):
    """Another process of the same run is gone: one that trains, scores, or reads images."""


class StorageError(VitresnasError):
    """A disk that is full or a folder that cannot be written."""


class UnreachableTarget(VitresnasError):
    """No architecture of the space can meet the target; the message names the reachable range."""

    exit_code = 3


def how_to_install(extra: str) -> str:
    """What mends a missing package: the project is on no index, so its extras need a checkout."""
    return f"run `pip install -e '.[{extra}]'` in the checkout"
