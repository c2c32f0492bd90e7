"""A headless Chromium for pages that must work, not only parse: what is installed, driven by
playwright, which brings no browser of its own here."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def missing() -> str:
    """Why no browser can be driven here; empty where one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install playwright"
    if _executable() is None:
        return "there is no Chromium on the path: apt-get install chromium"
    return ""


@contextmanager
def browser() -> Iterator[Any]:
    """A running Chromium, as playwright's Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # A container has no namespaces for Chromium's sandbox; the pages opened are our own.
        running = playwright.chromium.launch(executable_path=_executable(), args=["--no-sandbox"])
        try:
            yield running
        finally:
            running.close()


def open_page(running: Any, path: Path, **options: Any) -> tuple[Any, list[str]]:
    """A page of a file, and a list that fills with its complaints and with what it asks for
    outside the file. options: of playwright's Browser.new_page."""
    page, complaints = running.new_page(**options), []
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.on("console", lambda message: complaints.append(f"console: {message.text}"))
    address = path.resolve().as_uri()
    page.on(
        "request",
        lambda request: (
            complaints.append(f"asks for {request.url}") if request.url != address else None
        ),
    )
    page.goto(address)
    return page, complaints


def _executable() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)
