"""Types of arguments, for `add_argument(type=...)`: a complaint names the bound."""

from __future__ import annotations

import math


class WholeNumber:
    """A whole number of at least `minimum`."""

    def __init__(self, minimum: int) -> None:
        self._minimum = minimum
        self.__name__ = f"whole number of at least {minimum}"  # argparse prints this

    def __call__(self, text: str) -> int:
        value = int(text)
        if value < self._minimum:
            raise ValueError(text)
        return value


def positive(text: str) -> float:
    """A finite number above 0."""
    value = float(text)
    if not 0 < value < math.inf:
        raise ValueError(text)
    return value


positive.__name__ = "number above 0"


def percent(text: str) -> float:
    """2 and 2% are 0.02."""
    value = float(text.removesuffix("%"))
    if not 0 <= value < 100:
        raise ValueError(text)
    return value / 100


percent.__name__ = "percentage from 0 to below 100"
