"""vitresnas cache, and what the search keeps there."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from vitresnas import cache
from vitresnas.latency.request import Request
from vitresnas.search.prepare import Training, prepare_supernet, prepare_table
from vitresnas.supernet import Supernet
from vitresnas.supernet.directory import load_supernet, save_supernet


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "vitresnas"


def test_a_missing_folder_is_an_empty_cache(home, capsys):
    assert cache.main([]) == 0 and cache.main(["--clear"]) == 0
    assert not home.exists()
    assert "0 entries" in capsys.readouterr().out


def test_it_lists_size_age_and_what_and_clears(home, capsys):
    (cache.entry_folder("super-network x", {"seed": 0}) / "weights").write_bytes(b"0" * 200_000)
    assert cache.main([]) == 0
    listed = capsys.readouterr().out
    assert "0.2 MB" in listed and "super-network x" in listed and str(home) in listed
    assert cache.main(["--json", "--clear"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["cleared"] and [row["what"] for row in document["entries"]] == [
        "super-network x"
    ]
    assert cache.entries() == ()


def test_a_super_network_is_trained_once_per_recipe_data_and_space(search_kit):
    space, trained = search_kit.space, []

    def run(out, device):
        trained.append(out)
        torch.manual_seed(0)
        save_supernet(Supernet(space), out, {})

    training = Training("kit-supernet", {"epochs": 3}, run)
    first = prepare_supernet(training, space, "data-1")
    assert load_supernet(first, space=space).space == space
    assert prepare_supernet(training, space, "data-1") == first and len(trained) == 1
    others = {
        prepare_supernet(training, space, "data-2"),
        prepare_supernet(replace(training, shaped_by={"epochs": 4}), space, "data-1"),
        prepare_supernet(training, space.with_data(classes=3), "data-1"),
    }
    assert len(others | {first}) == 4


def test_training_that_broke_off_goes_on_in_the_same_folder(search_kit):
    space, folders = search_kit.space, []

    def run(out, device):
        folders.append(out)
        if len(folders) == 1:
            raise KeyboardInterrupt
        save_supernet(Supernet(space), out, {})

    training = Training("kit-supernet", {}, run)
    with pytest.raises(KeyboardInterrupt):
        prepare_supernet(training, space, "data")
    assert prepare_supernet(training, space, "data") == folders[0] == folders[1]


def test_this_machine_is_measured_once_per_condition(search_kit, home):
    request = Request(batch_size=2, seconds=0.2)
    table = prepare_table(search_kit.space, request)
    assert table.condition.batch_size == 2
    table.milliseconds(search_kit.space.largest)
    (entry,) = cache.entries()
    assert "latency table" in entry.what and "batch 2" in entry.what
    before = (entry.path / "latency_table.json").stat().st_mtime_ns
    assert prepare_table(search_kit.space, request) == table
    assert (entry.path / "latency_table.json").stat().st_mtime_ns == before
