"""Pages in a real browser: no complaint, no request, and hover and click do their work."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import browser, missing, open_page
from tests.report.training_folder import training_folder
from vitresnas.report import render_report
from vitresnas.search.result import SearchResult

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "cpu-xeon-2core"
QUICKSTART = Path(__file__).parents[1] / "golden" / "quickstart_result_2.json"
TABLE, SEARCH = RESULTS / "latency_table_tiny.json", RESULTS / "search_digits_2x.json"

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "a browser is there")


@pytest.fixture(scope="module")
def running() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def search(running, tmp_path_factory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("pages") / "search.html"
    path.write_text(render_report(SEARCH))
    page, complaints = open_page(running, path)
    yield page
    assert complaints == []


def source(kind: str, folder: Path) -> Path:
    """What a page of this kind is made of."""
    if kind == "quickstart":
        return Path(shutil.copy(QUICKSTART, folder / "quickstart_result.json"))
    return {"latency": TABLE, "search": SEARCH}.get(kind) or training_folder(folder)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["latency", "search", "training", "quickstart"])
def test_a_page_opens_without_a_complaint_or_a_request(running, tmp_path, kind, scheme):
    path = tmp_path / "page.html"
    path.write_text(render_report(source(kind, tmp_path), TABLE if kind == "latency" else None))
    page, complaints = open_page(running, path, color_scheme=scheme)
    if kind != "quickstart":  # which has no chart
        page.locator("svg.chart .point").first.hover(force=True)
        assert page.locator("#hover").is_visible() and page.locator("#hover").inner_text()
    assert page.locator("h1").is_visible() and complaints == []
    page.close()


def test_hovering_draws_the_network_and_marks_it_in_every_chart(search):
    result = SearchResult.load(SEARCH)
    key = result.pareto[0] if result.pareto[0] != result.best.candidate.id else result.pareto[1]
    candidate = result.find(key)
    point = search.locator(f'svg.chart .point[data-key="{key}"]').first
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    search.mouse.move(box["x"] + box["width"] / 2 + 1, box["y"] + box["height"] / 2)
    card = search.locator("#hover")
    blocks = sum(len(stage.kept) for stage in candidate.architecture.stages)
    assert card.locator("rect.bar").count() == 2 * blocks
    for words in (key, f"{candidate.score.negative_log_likelihood:.4f}"):
        assert words in card.inner_text()
    for stage in candidate.architecture.stages:
        assert f"{stage.embed} channels" in card.inner_text()
    marked = search.locator(".same").evaluate_all("found => found.map(e => e.dataset.key)")
    assert len(marked) >= 2 and set(marked) == {key}
    search.mouse.move(1, 1)
    assert card.is_hidden() and search.locator(".same").count() == 0


def test_the_page_opens_on_the_winner_beside_the_largest_network(search):
    result = SearchResult.load(SEARCH)
    shown = search.locator("#compare").inner_text()
    assert result.best.candidate.id in shown and result.largest.candidate.id in shown
    more = 100 * (result.largest.candidate.macs / result.best.candidate.macs - 1)
    assert f"+{more:.1f} %" in shown


def test_clicks_pin_two_networks_and_a_second_click_lets_go(search):
    rows = search.locator("tr[data-key]")
    first, second = (rows.nth(n).get_attribute("data-key") for n in (2, 3))
    compare = search.locator("#compare")
    rows.nth(2).click()
    rows.nth(3).click()
    assert first in compare.inner_text() and second in compare.inner_text()
    held = search.locator("tr.pin-a, tr.pin-b").evaluate_all("f => f.map(e => e.dataset.key)")
    assert set(held) == {first, second}
    rows.nth(3).click()
    assert second not in compare.inner_text() and "click a point" in compare.inner_text()


def test_the_keyboard_reaches_every_point(search):
    chart = search.locator("svg.chart").first
    assert chart.locator('[tabindex="0"]').count() == 1
    chart.locator('[tabindex="0"]').focus()
    seen = []
    for _ in range(3):
        seen.append(search.evaluate("document.activeElement.dataset.key"))
        search.keyboard.press("ArrowRight")
    assert len(set(seen)) == 3 and search.locator("#hover").is_visible()
    search.keyboard.press("Enter")
    pinned = search.evaluate("document.activeElement.dataset.key")
    assert pinned in search.locator("#compare").inner_text()
