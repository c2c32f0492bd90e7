"""bench/samplers.py: equal time, the same networks for all, and no work twice."""

from __future__ import annotations

import json

import pytest

from samplers import draw_networks, main
from vitresnas.files import read_json
from vitresnas.space import load_space
from vitresnas.supernet.samplers import SAMPLERS


@pytest.mark.slow
def test_samplers_are_compared_on_the_same_networks(toy_space, few_timed_steps, tmp_path, capsys):
    arguments = ["--recipe", "digits-supernet", "--space", str(toy_space), "--device", "cpu"]
    arguments += [
        "--batch-size",
        "192",
        "--hours",
        "0.0001",
        "--networks",
        "6",
        "--candidates",
        "12",
    ]
    arguments += ["--out", str(tmp_path)]
    assert main([*arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = document["rows"]
    assert [row["sampler"] for row in rows] == list(SAMPLERS)
    expected = [a.id for a in draw_networks(load_space(toy_space), 6, 0)]
    for row in rows:
        assert [network["id"] for network in row["networks"]] == expected
        assert row["training_seconds"] > 0 and "arXiv" in row["source"]
        assert row["best"]["macs"] <= row["best_macs_bound"]
        assert row["smallest"]["macs"] < row["median"]["macs"] < row["largest"]["macs"]
    assert rows[0]["difference"]["mean"] == 0
    assert rows[2]["batch_size"] == 192 // rows[2]["groups"]
    plan = read_json(tmp_path / "plan.json", "samplers_plan")
    assert plan["asked"]["recipe"]["path"] == "sliced"  # fp32 on a CPU
    for name, each in plan["seconds_per_epoch"].items():
        epochs = plan["epochs"][name]
        assert abs(epochs * each - plan["equal_seconds"]) <= each / 2 or epochs == 1

    # The same command again trains and measures nothing, another comparison is refused.
    written = (tmp_path / "plan.json").read_bytes()
    assert main(arguments) == 0
    assert (tmp_path / "plan.json").read_bytes() == written
    assert "nll of the draws" in capsys.readouterr().out
    assert main([*arguments, "--seed", "1"]) == 2
    assert "plans another comparison" in capsys.readouterr().err
