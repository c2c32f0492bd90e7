"""What a search keeps beside its result: settings, times, the picture, the cache."""

from __future__ import annotations

from dataclasses import replace

import pytest

from vitresnas import cache
from vitresnas.errors import FileFormatError, MismatchError
from vitresnas.latency import Measurement
from vitresnas.search import Evolution, Finalist, Speed, search
from vitresnas.search.picture import draw
from vitresnas.search.settings import check_folder, claim_folder
from vitresnas.search.timing import remembered

SETTINGS = {"target": "2x", "seed": 0, "space": {"name": "digits", "id": "abc"}}


def test_a_folder_belongs_to_the_search_that_claimed_it(tmp_path):
    check_folder(tmp_path, SETTINGS)
    claim_folder(tmp_path, SETTINGS)
    claim_folder(tmp_path, SETTINGS)
    check_folder(tmp_path, {"seed": 0})
    other = {**SETTINGS, "space": {"name": "digits", "id": "xyz"}}
    with pytest.raises(MismatchError, match=r"space\.id 'abc', this command's is 'xyz'"):
        claim_folder(tmp_path, other)
    less = {name: value for name, value in SETTINGS.items() if name != "seed"}
    with pytest.raises(MismatchError, match="a search with seed, which this command does not ask"):
        claim_folder(tmp_path, less)


def test_times_are_remembered_and_a_new_set_of_networks_is_timed_anew(tmp_path, digits):
    asked = []

    def timer(architectures):
        asked.append(architectures)
        return [Measurement((1.0, 2.0 + len(asked))) for _ in architectures]

    path = tmp_path / "proof.jsonl"
    pair = [digits.largest, digits.smallest]
    first = remembered(timer, path)(pair)
    again = remembered(timer, path)
    assert again(pair) == first and len(asked) == 1
    assert again(pair[:1]) != first[:1] and len(asked) == 2


def test_a_proof_log_of_something_else_is_refused(tmp_path):
    path = tmp_path / "proof.jsonl"
    path.write_text('{"ids": ["a"], "milliseconds": [["fast"]]}\n')
    with pytest.raises(FileFormatError, match="line 1"):
        remembered(lambda _: [], path)


@pytest.mark.parametrize("measured", [True, False])
def test_the_picture_is_drawn_with_and_without_a_measured_winner(
    tmp_path, digits, prices, formula_score, measured
):
    strategy = Evolution(initial=20, iterations=1, parents=5, mutants=5, crossovers=5)
    found = search(digits, formula_score, throughput=prices, strategy=strategy)
    target = {"requested": "2x", "images_per_second": 4000.0, "batch_size": 32}
    target |= {"dtype": "fp32", "runtime": "eager", "device": "a machine"}
    best = found.selected
    if measured:
        best = Finalist(best.candidate, Speed(5000.0, (4900.0, 5100.0), 2.1, (2.0, 2.2), 9))
    draw(replace(found, target=target, best=best), tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["search.png"]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vitresnas"


def test_an_entry_is_named_by_everything_that_shaped_it(home):
    one = cache.entry_folder("thing", {"seed": 0})
    assert one == cache.entry_folder("thing", {"seed": 0})
    assert one.parent == home and one.is_dir()
    assert len({one, cache.entry_folder("thing", {"seed": 1}), cache.entry_folder("x", {})}) == 3


def test_clearing_removes_entries_and_nothing_else(home, tmp_path):
    assert cache.entries() == cache.clear() == ()
    entry = cache.entry_folder("thing", {"seed": 0})
    (entry / "data").write_bytes(b"x" * 1000)
    (home / "mine").mkdir()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "entry.json").write_text("{}")
    (home / "link").symlink_to(tmp_path / "precious")
    (listed,) = cache.entries()
    assert listed.what == "thing" and listed.bytes >= 1000 and listed.age_seconds < 60
    assert [found.path for found in cache.clear()] == [listed.path]
    assert {path.name for path in home.iterdir()} == {"link", "mine"}
    assert (tmp_path / "precious" / "entry.json").exists()


def test_an_entry_that_a_process_is_making_is_not_cleared(home):
    entry = cache.entry_folder("thing", {})
    with cache.locked(entry):
        assert cache.clear() == ()
    assert len(cache.clear()) == 1


def test_a_relative_cache_home_is_ignored_as_its_specification_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache.cache_folder().is_absolute()
