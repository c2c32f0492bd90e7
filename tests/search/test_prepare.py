"""What a search takes over from the training of its super-network."""

from __future__ import annotations

from vitresnas.data.unreadable import UNREADABLE_SHARE, share_of
from vitresnas.files import write_json
from vitresnas.search.prepare import allowed_unreadable
from vitresnas.supernet.directory import CARD


def test_a_search_allows_as_many_unreadable_images_as_the_training_did(tmp_path):
    write_json(tmp_path / CARD, "supernet_card", {"run": {"unreadable_share": 0.2}})
    assert allowed_unreadable(tmp_path) == 0.2
    assert allowed_unreadable(None) == allowed_unreadable(tmp_path / "none") == UNREADABLE_SHARE
    assert share_of({"data": {"unreadable_share": 0.1}}) == 0.1  # the card of a model it found
    assert share_of({"run": "by hand"}) == share_of({}) == UNREADABLE_SHARE
