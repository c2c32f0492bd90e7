"""The page of a training run, finished or not, without torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.test_report import Page
from tests.report.training_folder import record, training_folder, write_lines
from vitresnas.errors import FileFormatError
from vitresnas.files import write_json
from vitresnas.report import render_report
from vitresnas.report.__main__ import main
from vitresnas.report.training import Run

SCORE = {"accuracy": 0.875, "negative_log_likelihood": 0.5}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return training_folder(tmp_path)


def test_curves_tiles_and_configuration_are_on_the_page(folder):
    html = render_report(folder)
    page = Page(html)
    words = [point["data-text"] for point in page.points]
    for value in ("epoch 2: 50.00 %", "epoch 4: 75.00 %", "epoch 2: 1.25", "epoch 4: 0.75"):
        assert value in words
    for shown in (
        "unfinished",
        "4 of 4",
        "best 75.00 % in epoch 4",
        "mixing.mixup",
        "photos (5ee)",
    ):
        assert shown in html
    assert "my &lt;recipe&gt;" in html and "<recipe>" not in html
    assert html.count("<figure>") == 4 and not page.links


def test_a_finished_run_shows_its_scores_and_notes(folder):
    result = {
        "recipe": "x",
        "data": {"name": "photos", "id": "5ee", "notes": ["24 images were set aside"]},
        "holdout": {"network": SCORE},
        "test": {"network": {**SCORE, "accuracy": 0.8125}},
        "seconds": 8.0,
    }
    write_json(folder / "training_result.json", "training_result", result)
    html = render_report(folder / "training_run.json")
    for shown in ("badge finished", "87.50 %", "81.25 %", "Note: 24 images were set aside."):
        assert shown in html


def test_setbacks_and_processes_are_told(folder):
    reason = "the loss of step 15 is nan"
    write_lines(folder / "rollbacks.jsonl", [{"first": 15, "last": 15, "reason": reason}])
    environment = {"device": "a GPU", "commit": "abc+", "date": "2026-01-02T03:04:05+00:00"}
    command = "vitresnas train --recipe x"
    lines = [{"command": command, "environment": environment}]
    write_lines(folder / "processes.jsonl", lines)
    html = render_report(folder)
    Page(html)
    for shown in (reason, "setback", "2026-01-02 03:04:05", "abc+", command, "a GPU"):
        assert shown in html


def test_whatever_else_is_logged_and_varies_is_drawn(folder):
    lines = [record(epoch, stand_ins=epoch, steps_left_out=0) for epoch in (1, 2, 3)]
    write_lines(folder / "metrics.jsonl", lines)
    html = render_report(folder)
    assert "Stand ins" in html and "Steps left out" not in html


def test_a_run_that_goes_on_is_not_disturbed(folder):
    metrics = folder / "metrics.jsonl"
    content = metrics.read_text() + '{"epoch": 5, "lo'
    metrics.write_text(content)
    assert Run.load(folder).epochs == 4
    assert metrics.read_text() == content


def test_a_run_before_its_first_epoch_has_a_page(folder, capsys):
    (folder / "metrics.jsonl").unlink()
    assert main([str(folder)]) == 0
    html = (folder / "report.html").read_text()
    Page(html)
    assert "No epoch has been finished yet" in html and "0 of 4" in html


def test_a_changed_run_file_is_refused(folder):
    path = folder / "training_run.json"
    path.write_text(path.read_text().replace('"epochs": 4', '"epochs": 5'))
    with pytest.raises(FileFormatError, match="checksum does not match"):
        render_report(folder)


def test_a_broken_line_is_told_by_its_number(folder):
    metrics = folder / "metrics.jsonl"
    metrics.write_text(metrics.read_text().replace('{"epoch": 2', '{"epoch" 2'))
    with pytest.raises(FileFormatError, match=r"line 2 of .*metrics.jsonl is not JSON"):
        render_report(folder)


def test_the_page_needs_no_torch(folder):
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from vitresnas.report import render_report\n"
        f"assert 'Training of' in render_report({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
