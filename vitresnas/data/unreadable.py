"""Images that cannot be read: a few may be left out, each is named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vitresnas.doors import Rank, say
from vitresnas.errors import DataError

UNREADABLE_SHARE = 0.001  # one in a thousand: ImageNet may lose 1,281, a small set none
_NAMED = 10  # at a time; a broken disk would fill the screen


def tolerate(
    complaints: Sequence[str], total: int, share: float, what: str, *, read_by_all: bool = True
) -> None:
    """Say which images are left out.

    complaints: one sentence per unreadable image of `total`. read_by_all: every process of a run
    reads these images, so that one of them speaks for all. Raises DataError where these are more
    than `share` of all.
    """
    check(len(complaints), total, share, what, complaints[0] if complaints else "")
    if read_by_all and not Rank.here().leads:
        return
    for complaint in complaints[:_NAMED]:
        say(f"left out of the {what}: {complaint}")
    if len(complaints) > _NAMED:
        say(f"left out of the {what}: {len(complaints) - _NAMED} more")


def share_of(card: Mapping[str, Any]) -> float:
    """What was allowed of the images behind a super-network or a model, as its card tells."""
    for place in (card.get("run"), card.get("data")):
        share = place.get("unreadable_share") if isinstance(place, dict) else None
        if isinstance(share, (int, float)) and 0 <= share < 1:
            return share
    return UNREADABLE_SHARE


def check(count: int, total: int, share: float, what: str, example: str) -> None:
    """Raise DataError where more than `share` of `total` images cannot be read."""
    if count <= share * total:
        return
    if share * total < 1:  # none may be left out
        raise DataError(f"{example}, or allow a larger --unreadable-share in training")
    raise DataError(
        f"{count} of {total} {what} cannot be read, more than the share of {share:g} that may be "
        f"left out ({example}): repair them, or allow a larger --unreadable-share in training"
    )
