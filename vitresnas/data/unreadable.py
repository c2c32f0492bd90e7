"""Images that cannot be read: a few may be left out, each is named."""

from __future__ import annotations

from collections.abc import Sequence

from vitresnas.doors import say
from vitresnas.errors import DataError

UNREADABLE_SHARE = 0.001  # one in a thousand: ImageNet may lose 1,281, a small set none
_NAMED = 10  # at a time; a broken disk would fill the screen


def tolerate(complaints: Sequence[str], total: int, share: float, what: str) -> None:
    """Say which images are left out.

    complaints: one sentence per unreadable image of `total`. Raises DataError where these are more
    than `share` of all.
    """
    check(len(complaints), total, share, what, complaints[0] if complaints else "")
    for complaint in complaints[:_NAMED]:
        say(f"left out of the {what}: {complaint}")
    if len(complaints) > _NAMED:
        say(f"left out of the {what}: {len(complaints) - _NAMED} more")


def check(count: int, total: int, share: float, what: str, example: str) -> None:
    """Raise DataError where more than `share` of `total` images cannot be read."""
    if count <= share * total:
        return
    if share * total < 1:  # none may be left out: the image's own sentence says it all
        raise DataError(example)
    raise DataError(
        f"{count} of {total} {what} cannot be read, more than the share of {share:g} that may be "
        f"left out ({example}): repair them, or raise --unreadable-share"
    )
