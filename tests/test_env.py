"""`vitresnas env` and the description of the machine that every file with numbers carries."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from vitresnas import env
from vitresnas.latency.environment import describe_environment, output
from vitresnas.ops import OPS
from vitresnas.ops.dispatch import BACKENDS, choose, find


def test_the_description_is_json_and_names_device_and_versions():
    found = describe_environment()
    assert json.loads(json.dumps(found)) == found
    assert found["device"] and found["processor"]
    assert found["threads"] == torch.get_num_threads()
    assert isinstance(found["cores"], int) and found["cores"] >= 1
    assert isinstance(found["versions"], dict)
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (found["driver"] == "") == (not torch.cuda.is_available())


def test_describing_does_not_import_torch_before_it_is_asked():
    code = "import sys, vitresnas.latency.environment; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_missing_or_failing_command_describes_nothing():
    assert output("no-such-command-anywhere") == ""
    assert output(sys.executable, "-c", "raise SystemExit(1)") == ""


def test_json_holds_every_backend_of_every_op_and_the_one_that_really_runs(capsys, monkeypatch):
    monkeypatch.delenv("VITRESNAS_BACKEND", raising=False)
    assert env.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"environment", "build", "backends"}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in OPS:
        rows = found["backends"][name]
        assert set(rows) == set(BACKENDS)
        default = [backend for backend, row in rows.items() if row["default"]]
        x = torch.zeros(2, 1, 16, device=device)
        assert default == [choose(find(name), (x, x)).name]
        for row in rows.values():
            assert row["runs"] or row["reasons"]


def test_the_text_gives_every_reason(capsys):
    assert env.main([]) == 0
    text = capsys.readouterr().out
    assert torch.__version__.partition("+")[0] in text
    for rows in env.report()["backends"].values():
        for row in rows.values():
            assert all(reason in text for reason in row["reasons"])


def test_help_shows_an_example_and_wrong_usage_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as exit_:
        env.main(["--help"])
    assert exit_.value.code == 0
    assert "vitresnas env --json" in capsys.readouterr().out
    assert env.main(["--jsonn"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
