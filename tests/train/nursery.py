"""Children of a process that has imported everything: a run to kill starts in milliseconds."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

# Each line of stdin is ("start", code, environment, log) or ("wait", pid); answers are numbers.
_MOTHER = """
import os, sys, traceback
import sklearn.datasets, timm.data.mixup, timm.data.random_erasing, timm.optim, timm.scheduler
import torch, torch.utils.tensorboard
import vitresnas.train.run
from dataclasses import replace
from vitresnas.data import Augmentation, Mixing
from vitresnas.train.recipe import Recipe

torch.set_num_threads(1)
print(0, flush=True)
for line in sys.stdin:
    what, *job = eval(line)
    if what == "wait":
        print(os.waitstatus_to_exitcode(os.waitpid(job[0], 0)[1]), flush=True)
        continue
    code, environment, log = job
    pid = os.fork()
    if pid:
        print(pid, flush=True)
        continue
    os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.dup2(2, 1)
    os.environ.update(environment)
    status = 1
    try:
        exec(code)
        status = 0
    except SystemExit as end:
        status = end.code or 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(status)
"""


@dataclass
class Child:
    """A process of ours that runs a piece of Python."""

    nursery: Nursery
    pid: int
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """The exit code; negative: the signal that ended it."""
        return self.nursery.ask("wait", self.pid)


class Nursery:
    """Starts children; `close` ends it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._count = folder, 0
        self._mother = subprocess.Popen(
            [sys.executable, "-c", _MOTHER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def start(self, code: str, **environment: str) -> Child:
        """Run `code`, which finds Recipe, Augmentation, Mixing, torch and vitresnas at hand."""
        self._count += 1
        log = self._folder / f"{self._count}.log"
        return Child(self, self.ask("start", code, environment, str(log)), log)

    def start_together(self, code: str, count: int) -> list[Child]:
        """As torchrun starts the processes of one run."""
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
        return [
            self.start(code, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
            for rank in range(count)
        ]

    def ask(self, *question: object) -> int:
        assert self._mother.stdin is not None
        self._mother.stdin.write(repr(question) + "\n")
        self._mother.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._mother.kill()
        self._mother.communicate()

    def _answer(self) -> int:
        assert self._mother.stdout is not None
        return int(self._mother.stdout.readline())


def wait_until(condition, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.005)
