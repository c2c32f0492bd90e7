"""The way of a user with a GPU, command by command."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vitresnas.__main__ import main

DEVICE = "cuda"


@pytest.mark.gpu
def test_train_measure_search_retrain_verify(search_kit, tmp_path, capsys):
    def command(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        code = main([*map(str, arguments), "--device", DEVICE, "--json"])
        printed = capsys.readouterr()
        assert code == 0, printed
        return json.loads(printed.out)

    space = search_kit.folder / "space.json"
    supernet, table = tmp_path / "supernet", tmp_path / "table.json"
    found, final = tmp_path / "found", tmp_path / "final"
    training = ("train", "--data", "digits", "--epochs", 1, "--batch-size", 64)
    search = ("search", "--space", space, "--supernet", supernet, "--proof-seconds", 1)
    retraining = (*training, "--recipe", "digits-retrain", "--init", "inherited")

    looked = command(*training, "--recipe", "digits-supernet", "--space", space, "--dry-run")
    assert looked["images_per_second"] > 0
    trained = command(*training, "--recipe", "digits-supernet", "--space", space, "--out", supernet)
    assert trained["test"]["largest"]["accuracy"] > 0
    command("latency-table", "--space", space, "--batch-size", 8, "--seconds", 3, "--out", table)
    result = command(
        *(*search, "--latency-table", table, "--batch-size", 8),
        *("--throughput-target", "0.7x", "--candidates", 30, "--out", found),
    )
    assert result["verdict"] == "met"
    command(
        *(*retraining, "--architecture", found / "architecture.json", "--supernet", supernet),
        *("--out", final),
    )
    verified = command(*("verify", found / "model", "--throughput-target", "0.7x", "--seconds", 2))
    assert verified["verdict"] == "met"
