"""Condition: everything outside the network that decides how fast it runs. No torch in here."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass

from vitresnas.errors import FileFormatError
from vitresnas.files import Fields, JsonObject

DTYPES = ("fp32", "bf16", "fp16")


@dataclass(frozen=True)
class Condition:
    """Where and how the pieces of one space were timed.

    `driver` and `versions` describe the measurement; they do not tell two conditions apart, so
    measuring again after an upgrade replaces the old numbers.
    """

    space: str
    space_id: str
    image_size: int
    device: str
    dtype: str
    batch_size: int
    runtime: str
    backend: str
    threads: int
    driver: str
    versions: tuple[tuple[str, str], ...]

    @property
    def key(self) -> tuple[str | int, ...]:
        """What tells two conditions of one file apart."""
        return (
            self.space_id,
            self.image_size,
            self.device,
            self.dtype,
            self.batch_size,
            self.runtime,
            self.backend,
            self.threads,
        )

    def __str__(self) -> str:
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        return (
            f"space {self.space}, {self.dtype}, batch {self.batch_size}, {self.runtime}, "
            f"{threads}, on {self.device}"
        )

    def command(self, out: str = "FILE", space: str | None = None) -> str:
        """The command that measures this condition into `out`."""
        return (
            f"python bench/latency_table.py --space {shlex.quote(space or self.space)} "
            f"--batch-size {self.batch_size} --dtype {self.dtype} --runtime {self.runtime} "
            f"--threads {self.threads} --out {shlex.quote(out)}"
        )

    def to_json(self) -> JsonObject:
        fields = asdict(self)
        space = {"name": fields.pop("space"), "id": fields.pop("space_id")}
        return {**fields, "space": space, "versions": dict(self.versions)}

    @classmethod
    def take(cls, fields: Fields, where: str) -> Condition:
        """Read the condition out of a larger object; the caller calls `fields.done()`."""
        space = Fields(fields.take("space"), f"{where}, space")
        name, space_id = space.text("name"), space.text("id")
        space.done()
        return cls(
            space=name,
            space_id=space_id,
            image_size=fields.integer("image_size"),
            device=fields.text("device"),
            dtype=fields.text("dtype", choices=DTYPES),
            batch_size=fields.integer("batch_size"),
            runtime=fields.text("runtime"),
            backend=fields.text("backend"),
            threads=fields.integer("threads"),
            driver=fields.text("driver"),
            versions=_versions(fields.take("versions"), f"{where}, versions"),
        )


def _versions(value: object, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise FileFormatError(f"{where} is {value!r}, expected names with their versions as text")
    return tuple(sorted(value.items()))
