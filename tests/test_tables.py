"""Tables in documents are what the committed results say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from vitresnas.files import write_json

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "bench" / "tables.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def document(tables, tmp_path, monkeypatch):
    rows = [
        {"path": "dense", "milliseconds_median": 1234.5, "milliseconds_min": 20.0},
        {"path": "fused", "milliseconds_median": 12.345, "milliseconds_min": 5.0},
    ]
    rows = [{**row, "peak_bytes": None} for row in rows]
    write_json(tmp_path / "gpu" / "supernet_step_tiny.json", "bench", {"rows": rows})
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    path = tmp_path / "README.md"
    path.write_text("before\n<!-- table: gpu/supernet_step_tiny -->\nold\n<!-- /table -->\nafter\n")
    return path


def test_our_documents_show_what_the_results_say(tables, capsys):
    shown = (ROOT / "README.md", ROOT / "docs" / "search_cost.md")
    assert all("<!-- table: " in document.read_text() for document in shown)
    assert tables.main(["--check"]) == 0, capsys.readouterr().err


def test_a_stale_table_is_noticed_and_mended_and_nothing_else_is_touched(tables, document, capsys):
    assert tables.main(["--check", str(document)]) == 2
    assert "run python bench/tables.py" in capsys.readouterr().err
    assert "old" in document.read_text()
    assert tables.main([str(document)]) == 0
    assert document.read_text() == (
        "before\n<!-- table: gpu/supernet_step_tiny -->\n"
        "| path | median ms | mean of the draws' fastest, ms | over dense |\n"
        "|---|---|---|---|\n"
        "| dense: the largest network, no masks | 1,234 | 20 | 1.00 |\n"
        "| fused: variable-width kernels | 12.3 | 5 | 0.25 |\n"
        "<!-- /table -->\nafter\n"
    )
    assert tables.main(["--check", str(document)]) == 0


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gpu/supernet_step_tiny path=sliced", "has no rows"),
        ("gpu/supernet_step_tiny view=rows", 'the view "rows"'),
        ("gpu/supernet_step_tiny fused", "is no condition"),
        ("gpu/supernet_step_small", "there is no file"),
        ("gpu/elsewhere", "no table is known"),
        ("gpu/elsewhere missing=told", "no table is known"),
    ],
)
def test_a_wrong_name_is_one_sentence(tables, document, capsys, name, sentence):
    document.write_text(f"<!-- table: {name} -->\n<!-- /table -->\n")
    assert tables.main([str(document)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_result_that_is_still_to_come_has_its_place(tables, document):
    document.write_text(
        "<!-- table: gpu/against_designed_cifar missing=told -->\n<!-- /table -->\n"
    )
    assert tables.main([str(document)]) == 0
    assert "-->\nNot measured yet.\n<!--" in document.read_text()
    row = {
        **{"contestant": "pit", "what": "PiT-like", "timm_network": {}, "within_tolerance": False},
        **{"images_per_second": 1234.0, "interval_95": [1200.0, 1300.0], "relative": 1.04},
        **{"macs": 5_000_000, "parameters": 1_000_000, "epochs": 7, "planned_seconds": 60.2},
        **{"used_seconds": 63.7, "holdout_negative_log_likelihood": 0.1, "test_accuracy": 0.95},
        "test_accuracy_interval_95": [0.94, 0.96],
    }
    result = tables.RESULTS / "gpu" / "against_designed_cifar.json"
    write_json(result, "against_designed", {"contestants": [row]})
    assert tables.main([str(document)]) == 0
    assert "| 1.040, too far | 5.0 | 1.00 | 7 | 60, 64 | 0.1000 |" in document.read_text()


def test_a_table_that_is_not_closed_is_refused(tables, document, capsys):
    document.write_text("<!-- table: gpu/supernet_step_tiny -->\nold\n")
    assert tables.main([str(document)]) == 2
    assert "is not closed" in capsys.readouterr().err
