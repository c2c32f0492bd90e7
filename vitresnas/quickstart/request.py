"""What a user asks of a quickstart; what is not asked is decided by the plan."""

from __future__ import annotations

from dataclasses import dataclass

from vitresnas.errors import InputError
from vitresnas.latency.request import Request as TableRequest
from vitresnas.search.constraint import Target

OWN_IMAGES_UNREADABLE = 0.02  # a folder of own images has a broken one more often than ImageNet


@dataclass(frozen=True)
class Request:
    """batch_size, dtype and runtime: how the network will be used. unreadable_share: of each split,
    that may be left out."""

    data: str
    target: str
    hours: float
    space: str | None = None
    image_size: int | None = None
    batch_size: int | None = None
    dtype: str = "fp32"
    runtime: str = "eager"
    device: str = "auto"
    seed: int = 0
    unreadable_share: float = OWN_IMAGES_UNREADABLE

    def __post_init__(self) -> None:
        Target.parse(self.target)
        TableRequest(dtype=self.dtype, runtime=self.runtime)  # refuses what cannot be timed
        if not 0 < self.hours < 10_000:
            raise InputError(
                f"hours is {self.hours:g}: use a number above 0 and below 10,000, as in 0.5"
            )
        if not 0 <= self.unreadable_share < 1:
            raise InputError(f"unreadable_share is {self.unreadable_share:g}: use 0 to below 1")
        if self.space is not None and self.image_size is not None:
            raise InputError("a space has its own image size: leave --image-size out")
        for name in ("image_size", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{name} is {value}: use at least 1")
