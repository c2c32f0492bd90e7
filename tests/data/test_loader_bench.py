"""bench/loader.py says which is the limit, with a toy run of it."""

from __future__ import annotations

import json

import pytest
from loader import main, verdict


def row(stage, workers, waiting):
    return {"stage": stage, "workers": workers, "images_per_second": 1.0, "waiting": waiting}


def test_the_verdict_is_by_waiting_and_names_the_fewest_workers():
    slow = [row("device", None, None), row("loader", 0, None), row("together", 0, 0.8)]
    found = verdict([*slow, row("together", 2, 0.4)])
    assert found["limit"] == "loader" and "with 2 workers the device waits for 40%" in str(found)
    found = verdict([*slow, row("together", 4, 0.02), row("together", 2, 0.07)])
    assert (found["limit"], found["workers"]) == ("device", 2)


@pytest.mark.parametrize(
    "recipe",
    [
        ["--recipe", "digits-retrain", "--architecture", "digits:smallest"],
        ["--recipe", "digits-supernet", "--batch-size", "8"],
    ],
    ids=["network", "supernet"],
)
def test_it_times_device_loader_and_both(capsys, tmp_path, recipe):
    out = tmp_path / "loader.json"
    command = [*recipe, "--workers", "0", "--seconds", "0.2", "--device", "cpu"]
    assert main([*command, "--json", "--out", str(out)]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [row["stage"] for row in document["rows"]] == ["device", "loader", "together"]
    device, loader, together = (row["images_per_second"] for row in document["rows"])
    assert min(device, loader, together) > 0 and loader > device
    assert document["limit"] == "device" and out.exists()


@pytest.mark.parametrize("bad", [["--seconds", "0"], ["--recipe", "cifar-supernet"]])
def test_bad_input_is_refused(capsys, bad):
    assert main(bad) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
