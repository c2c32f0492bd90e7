"""bench/against_designed.py: equally fast, equally long, and no work twice."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from against_designed import main
from designed import families
from designed.families import FAMILIES, widths
from designed.matching import match
from designed.request import Request
from vitresnas.latency.statistics import Measurement
from vitresnas.models.timm_sized import TimmNetwork, quiet
from vitresnas.space import SearchSpace, StageChoices, load_space
from vitresnas.space.architecture import Embedding
from vitresnas.train import dry_run
from vitresnas.train.recipes import RECIPES

SPACE = SearchSpace(
    name="toy",
    image_size=8,
    patch_size=2,
    embedding=Embedding("convolutional", 4),
    stages=(
        StageChoices((16, 8), 8, 2, (2, 1), (32, 16), (2,)),
        StageChoices((32, 24), 8, 2, (4, 2), (64, 32), (2,)),
    ),
    classes=10,
)


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def by_work(rounds_asked):
    """A clock on which a network takes as long as it has MACs, and 3 % more or less by turns."""

    def clock(networks, rounds):
        rounds_asked.append(rounds)
        times = {}
        for place, (name, network) in enumerate(networks.items()):
            work = sum(p.numel() for p in network.parameters())
            times[name] = Measurement(tuple(work * (1 + 0.03 * (place % 2)) for _ in range(5)))
        return times

    return clock


def test_shapes_are_sized_to_the_speed_of_the_reference(monkeypatch):
    monkeypatch.setattr(families, "DEPTHS", (6, 9, 12))
    space = load_space("digits")
    asked: list[int | None] = []
    both = [FAMILIES["deit"], FAMILIES["pit"]]
    reference = FAMILIES["deit"].build(space, widths(space, 256)[9], 10)
    with quiet(), torch.device("meta"):  # nobody runs them
        found = match(both, space, reference.create(10), by_work(asked))
    for family in both:
        row = found[family.name]
        assert abs(math.log(row["relative"])) < 0.06
        distances = [abs(math.log(one["relative"])) for one in row["shortlist"]]
        assert distances == sorted(distances) and len(distances) == 6
        assert TimmNetwork(**row["network"]).cost(10).classes == 10
    # Probes are short and few; the nearest are timed as long as it takes.
    assert asked[-1] is None and set(asked[:-1]) == {6} and len(asked) < 9


def test_heads_are_about_as_wide_as_the_space_s():
    found = widths(load_space("cifar"), 512)
    assert all(24 <= width.head_dim <= 48 for width in found)
    channels = [width.channels for width in found]
    assert channels == sorted(set(channels)) and 192 in channels and max(channels) == 512


def test_two_stages_end_in_one_comparison(tmp_path, capsys, monkeypatch, one_thread):
    monkeypatch.setattr(dry_run, "TIMED_STEPS", 1)
    monkeypatch.setattr(families, "DEPTHS", (6,))
    for name in ("digits-supernet", "digits-retrain"):
        monkeypatch.setitem(RECIPES, name, partial(replace, RECIPES[name](), batch_size=512))
    SPACE.save(tmp_path / "space.json")
    arguments = ["--space", str(tmp_path / "space.json"), "--device", "cpu", "--hours", "0.0001"]
    arguments += ["--retrain-hours", "0.0001", "--throughput-target", "0.5x", "--candidates", "8"]
    arguments += ["--table-seconds", "0.2", "--proof-seconds", "0.2", "--batch-size", "4"]
    arguments += ["--threads", "1", "--out", str(tmp_path / "out"), "--json"]

    assert main([*arguments, "--stage", "compare"]) == 2
    assert "--stage supernet first" in capsys.readouterr().err
    assert main([*arguments, "--stage", "supernet"]) == 0
    supernet = json.loads(capsys.readouterr().out)["supernet"]
    assert [one["size"] for one in supernet["networks"]] == ["largest", "median", "smallest"]
    work = [one["macs"] for one in supernet["networks"]]
    assert work[0] > work[1] > work[2]
    assert all(0 <= one["test_accuracy"] <= 1 for one in supernet["networks"])
    assert supernet["planned_seconds"] > 0 and supernet["used_seconds"] > 0

    assert main([*arguments, "--stage", "compare"]) == 0
    document = json.loads(capsys.readouterr().out)
    found, drawn, deit, pit = rows = document["contestants"]
    assert [row["contestant"] for row in rows] == ["found", "random", "deit", "pit"]
    assert drawn["search"]["candidates"] == found["search"]["candidates"] <= 8
    assert found["relative"] == 1 and "timm_network" in deit and "timm_network" in pit
    longest = max(row["seconds_per_epoch"] for row in rows)
    for row in rows:
        assert row["within_tolerance"] == (abs(row["relative"] - 1) <= 0.03)
        slack = abs(row["planned_seconds"] - document["planned_seconds"])
        assert slack <= row["seconds_per_epoch"] / 2 or row["epochs"] == 1
        assert row["planned_seconds"] <= document["planned_seconds"] + longest
        assert row["used_seconds"] == pytest.approx(row["curve"][-1]["seconds"])
        low, high = row["test_accuracy_interval_95"]
        assert low <= row["test_accuracy"] <= high
        assert row["macs"] > 0 and row["parameters"] > 0
    assert (tmp_path / "out" / "against_designed.png").stat().st_size > 10_000

    # All of it is there: the same command reads it, another one is refused.
    assert main([*arguments[:-1], "--stage", "all"]) == 0
    assert "images/s (95 %)" in capsys.readouterr().out
    again = json.loads((tmp_path / "out" / "against_designed.json").read_text())
    assert again["contestants"] == rows
    assert main([*arguments, "--seed", "1"]) == 2
    assert "plans another comparison" in capsys.readouterr().err


def test_a_wrong_request_is_one_sentence(tmp_path, capsys):
    out = ["--out", str(tmp_path)]
    assert main([*out, "--designed", "vgg", "--throughput-target", "2x"]) == 2
    assert "use deit, deit-coarse, pit" in capsys.readouterr().err
    assert main(out) == 2
    assert "give --throughput-target" in capsys.readouterr().err
    assert main([*out, "--recipe", "digits-retrain", "--throughput-target", "2x"]) == 2
    assert "give the recipe of a super-network" in capsys.readouterr().err
    assert main([*out, "--hours", "0", "--throughput-target", "2x"]) == 2
    assert "use a number above 0" in capsys.readouterr().err


def test_a_recipe_finds_its_retraining(tmp_path):
    for recipe, retraining in (
        ("digits-supernet", "digits-retrain"),
        ("cifar-nano-quick-supernet", "cifar-retrain"),
        ("supernet-tiny", "retrain"),
    ):
        request = Request(recipe=recipe, out=tmp_path, data="photos", space="digits")
        assert request.retraining("x").name == retraining
