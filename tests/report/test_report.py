"""A report is one well-formed page that needs nothing else and shows what the file holds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from vitresnas.latency.drift import Stretch
from vitresnas.latency.table import Transfer, load_tables, save_tables
from vitresnas.latency.timing import Timing
from vitresnas.latency.validation import Validation
from vitresnas.report import render_report
from vitresnas.report.__main__ import main
from vitresnas.report.chart import Chart, Point, Series
from vitresnas.report.networks import networks
from vitresnas.report.scale import Axis, number
from vitresnas.report.search import search_page
from vitresnas.report.stages import draw_stages
from vitresnas.search.candidate import Finalist
from vitresnas.search.picture import draw
from vitresnas.search.result import SearchResult
from vitresnas.search.summary import summary

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "cpu-xeon-2core"
GOLDEN = Path(__file__).parents[1] / "golden"
FIRST_VERSION = GOLDEN / "latency_table_1.json"
TINY = RESULTS / "latency_table_tiny.json"
TABLE, SEARCH = RESULTS / "latency_table_digits.json", RESULTS / "search_digits_2x.json"
VOID = {"meta", "circle", "path", "rect", "br", "i"}


class Page(HTMLParser):
    """What is on the page; complains about tags that are left open or closed twice."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.points: list[dict[str, str | None]] = []
        self.links: list[str] = []
        self.feed(html)
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.links += [v for k, v in attributes if k in ("src", "href") and v]
        if "point" in (found.get("class") or ""):
            self.points.append(found)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_a_latency_page_shows_every_network_and_every_piece():
    html = render_report(TABLE)
    page, (table,) = Page(html), load_tables(TABLE)
    keys = [point["data-key"] for point in page.points if point["data-key"]]
    networks = (*table.validation.pairs, *table.validation_uniform.pairs)
    for pair in networks:
        assert keys.count(pair.architecture.id) >= 2  # in two charts, tied together by its id
    pieces = [p for p in page.points if "MACs per image" in (p["data-text"] or "")]
    assert len(pieces) == len(table.entries)
    assert not page.links and "://" not in html.replace("http://www.w3.org", "")
    assert f"{table.validation.mean_absolute_percentage_error:.1f} % on average" in html


def test_drift_is_shown_as_it_was_read_and_in_words(tmp_path):
    (table,) = load_tables(TINY)
    assert table.drift
    half = table.drift.readings[len(table.drift.readings) // 2].at
    drift = replace(table.drift, stretches=(Stretch(half, float("inf"), 40.0),))
    save_tables(tmp_path / "table.json", [replace(table, drift=drift)])
    html = render_report(tmp_path / "table.json")
    readings = [p for p in Page(html).points if re.match(r"[\d.]+ s: ", p["data-text"] or "")]
    assert len(readings) == len(drift.readings)
    red = [p for p in readings if "c-alarm" in (p["class"] or "")]
    assert len(red) == sum(reading.at > half for reading in drift.readings)
    assert escape(str(drift)) in html and "by up to +40 %" in html
    assert "not recorded" in render_report(FIRST_VERSION)  # which knew no drift


def test_a_transferred_table_stands_beside_the_full_one(tmp_path, capsys):
    (full,) = load_tables(TINY)
    slower = [
        (operation, Timing(tuple(1.1 * time for time in timing.host_samples)))
        for operation, timing in full.entries
    ]
    origin = Transfer("another device", 18, 12)
    first = full.validation.pairs[0]
    seen = Validation((first,))  # by chance among those that the transfer was fitted on
    short = replace(full, entries=tuple(slower), transfer=origin, calibration_networks=seen)
    save_tables(tmp_path / "short.json", [short])
    assert main([str(tmp_path / "short.json"), "--against", str(TINY)]) == 0
    html = (tmp_path / "short.html").read_text()
    page, ids = Page(html), [pair.architecture.id for pair in full.validation.pairs]
    keys = [point["data-key"] for point in page.points]
    assert keys.count(ids[1]) == keys.count(first.architecture.id) + 2
    rest = full.validation.pairs[1:]
    for table in (short, full):
        errors = [100 * abs(table.milliseconds(p.architecture) / p.measured - 1) for p in rest]
        cells = "".join(
            f'<td class="number">{e:.2f}</td>' for e in (sum(errors) / len(errors), max(errors))
        )
        assert cells in html
    assert str(origin) in html and "measured in full" in html
    assert main([str(TINY), "--against", str(TABLE), "--out", str(tmp_path / "x")]) == 2
    assert main([str(SEARCH), "--against", str(TINY), "--out", str(tmp_path / "x")]) == 2
    said = capsys.readouterr().err
    assert "holds no condition of" in said and "--against is for latency tables" in said
    assert not (tmp_path / "x").exists()


def test_a_search_page_shows_every_candidate_and_the_winner():
    html = render_report(SEARCH)
    page, result = Page(html), SearchResult.load(SEARCH)
    keys = {point["data-key"] for point in page.points}
    assert {candidate.id for candidate in result.history} <= keys
    stars = [p for p in page.points if "star" in (p["class"] or "")]
    assert {p["data-key"] for p in stars} == {result.best.candidate.id}
    assert not page.links and "://" not in html.replace("http://www.w3.org", "")


def test_estimates_on_the_front_are_told_apart(tmp_path):
    result = SearchResult.load(SEARCH)
    worse = next(i for i in result.pareto if i != result.best.candidate.id)
    history = [
        replace(one, score=replace(one.score, images=40)) if one.id == worse else one
        for one in result.history
    ]
    raced = replace(result, history=tuple(history))
    rings = [p for p in Page(search_page(raced, "found")).points if "rings" in (p["class"] or "")]
    assert [p["data-key"] for p in rings] == [worse]
    assert "1 by an estimate" in summary(raced) and "estimate" not in summary(result)
    draw(raced, tmp_path / "search.png")


def test_a_search_page_tells_of_the_proof_and_of_every_constraint():
    result = SearchResult.load(SEARCH)
    limits = ["macs <= 20M MACs per image", "latency <= 5 ms per batch"]
    limited = replace(result, settings={**result.settings, "constraints": limits})
    html = search_page(limited, "found")
    Page(html)
    for name in (
        "macs &lt;= 20M",
        "latency &lt;= 5 ms",
        f"throughput &gt;= {result.target['requested']}",
    ):
        assert name in html
    verdicts = re.findall(r'<td><span class="badge (\w+)">', html)
    assert verdicts == ["met", "met", "unproven"]  # nobody measured the latency
    speed = result.best.speed
    assert speed and f"{speed.relative:.2f}x" in html


def test_a_page_shows_how_every_check_was_made_and_every_class():
    result = SearchResult.load(GOLDEN / "search_result_2.json")
    html = search_page(result, "found")
    Page(html)
    for check in result.best.checks:
        assert escape(check.wanted) in html and f"<td>{check.how}</td>" in html
    assert "The winner, class by class" in html
    for name in result.per_class["names"]:
        assert f"<td>{name}</td>" in html or f'<td class="number">{name}</td>' in html
    first, *rest = result.history
    costly = replace(first, costs=(("peak_memory", 3e6),))
    assert "peak_memory, bytes" in networks(replace(result, history=(costly, *rest)))


def test_a_page_tells_fine_tuned_weights_from_inherited_ones():
    result = SearchResult.load(GOLDEN / "search_result_5.json")
    tuned = replace(result, test_accuracy=0.985, seconds={"search": 60.0, "fine_tuning": 180.0})
    html = search_page(tuned, "x")
    Page(html)
    section = html[html.index("Fine-tuned, with their own weights") :]
    assert result.fine_tuned[0].id in section and "0.0500" in section and "99.0 %" in section
    assert "nats, inherited weights" in html and ">fine-tuned weights" in html
    assert "fine-tuning finalists" in html and "75 %" in html
    plain = search_page(replace(tuned, fine_tuned=()), "x")
    assert ">inherited weights" in plain and "fine-tuned weights" not in plain


def test_a_search_without_speeds_is_drawn_over_macs():
    result = SearchResult.load(SEARCH)

    def bare(finalist: Finalist) -> Finalist:
        return Finalist(replace(finalist.candidate, predicted_images_per_second=None))

    plain = replace(
        result,
        target={},
        rounds=(),
        history=tuple(bare(Finalist(found)).candidate for found in result.history),
        best=bare(result.best),
        selected=bare(result.selected),
        largest=bare(result.largest),
    )
    html = search_page(plain, "found")
    Page(html)
    assert "Score against MACs" in html and "Nothing was timed" in html


def test_what_the_script_knows_is_what_the_file_holds():
    result = SearchResult.load(SEARCH)
    known = json.loads(re.findall('id="networks">(.*?)</script>', networks(result))[0])
    assert {found.id for found in result.history} | {result.largest.candidate.id} == set(known)
    best = known[result.best.candidate.id]
    assert best["macs"] == result.best.candidate.macs
    assert result.best.speed and best["measured"][0] == result.best.speed.images_per_second
    stages = result.best.candidate.architecture.stages
    assert [[bool(b) for b in s[2]] for s in best["stages"]] == [
        [b is not None for b in stage.blocks] for stage in stages
    ]


def test_the_shares_of_a_drawn_network_add_up():
    best = SearchResult.load(SEARCH).best.candidate.architecture
    drawn = draw_stages(best, best)
    Page(drawn)
    shares = [int(found) for found in re.findall(r">(?:[\d.]+\w? MACs, )?(\d+) %<", drawn)]
    assert abs(sum(shares) - 100) <= len(shares) / 2
    assert drawn.count('class="bar') == 2 * best.depth


def test_the_command_writes_one_file_beside_its_source(tmp_path, capsys):
    copy = tmp_path / "latency_table.json"
    copy.write_bytes(TABLE.read_bytes())
    assert main([str(copy)]) == 0
    assert (tmp_path / "latency_table.html").read_text() == render_report(copy)
    assert main([str(tmp_path), "--out", str(tmp_path / "x.html")]) == 0
    assert "open it in a browser" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "latency_table.html",
        "latency_table.json",
        "x.html",
    ]


@pytest.mark.parametrize("version", [1, 2])
def test_a_quickstart_has_a_page_of_its_result(version, tmp_path):
    golden = GOLDEN / f"quickstart_result_{version}.json"
    (tmp_path / "quickstart_result.json").write_bytes(golden.read_bytes())
    (tmp_path / "latency_table.json").write_bytes(TABLE.read_bytes())  # one of its parts
    html = render_report(tmp_path)
    Page(html)
    assert "Quickstart for 2x" in html and "1.988 to 2.042" in html and "mine/final" in html
    assert ("Class by class" in html) == (version == 2)
    assert html.find("<td>dog</td>") < html.find("<td>cat</td>") or version == 1


def test_text_from_files_cannot_become_markup():
    mark = Point(1.0, 2.0, '"><script>alert(1)</script>', "<b>")
    chart = Chart("<i>", Axis("<x>"), Axis("y"), (Series("<s>", (mark,)),), note="<n>")
    html = chart.svg()
    for tag in ("<script>", "<i>", "<x>", "<s>", "<n>", "<b>"):
        assert tag not in html
    Page(html)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [(1.0,), (3.0, 3.0), (1e-6, 1e6), (0.1, 0.11)])
def test_every_mark_lies_within_the_axes(values, log):
    points = tuple(Point(v, v) for v in values)
    chart = Chart("t", Axis("x", log=log), Axis("y", log=log), (Series("s", points),))
    for mark in Page(chart.svg()).points:
        x, y = map(float, (mark["transform"] or "")[len("translate(") : -1].split())
        assert 72 <= x <= 624 and 16 <= y <= 368


def test_numbers_are_short():
    assert [number(v) for v in (0.12345, 1782630272, 4579418, 12345, 999)] == [
        "0.1235", "1.783G", "4.579M", "12.35k", "999",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: p / "missing.json", "there is no file"),
        (lambda p: p, "holds none of search_result.json, quickstart_result.json, latency_table"),
        (lambda p: _write(p, "{}"), "it is not a vitresnas file"),
        (lambda p: _write(p, '{"schema": "vitresnas/architecture/1"}'), "has no report"),
        (lambda p: _write(p, TABLE.read_text()[:5000]), "it was cut short"),
        (lambda p: _write(p, TABLE.read_text().replace("eager", "compile")), "checksum"),
    ],
)
def test_what_has_no_report_is_one_sentence(make, words, tmp_path, capsys):
    assert main([str(make(tmp_path))]) == 2
    said = capsys.readouterr().err
    assert words in said and len(said.splitlines()) == 1


def test_reports_need_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "from vitresnas.report import render_report\n"
        f"assert render_report({str(TABLE)!r})"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def _write(folder: Path, content: str) -> Path:
    path = folder / "latency_table.json"
    path.write_text(content)
    return path
