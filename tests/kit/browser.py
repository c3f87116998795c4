"""Chromium, as people have it: Debian's package, driven by Playwright, which downloads no browser of its own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Page, StorageState, sync_playwright

PATIENCE_MS = 30_000
"""For what a page does by itself. A test that meets it has failed."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """One browser; each person gets a context of their own in it: cookies of theirs alone."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    assert program, "Chromium is not installed: `make test` installs it"
    as_root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=as_root)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def tab(
    browser: Browser, *, scripts: bool = True, cookies: StorageState | None = None, expect: tuple[str, ...] = ()
) -> Iterator[Page]:
    """A person with one tab. At the end the browser must not have complained: of a broken policy, a script that
    failed, something that could not be loaded; but for complaints that hold one of `expect`."""
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            complaints.append(message.text)

    # The test's own authority is not in Chromium's store; what TLS does is tested elsewhere.
    context = browser.new_context(
        ignore_https_errors=True, java_script_enabled=scripts, storage_state=cookies, timezone_id="Asia/Kolkata"
    )
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.on("console", note)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    try:
        yield page
    finally:
        context.close()
    assert [text for text in complaints if not any(known in text for known in expect)] == []


def inaccessible(page: Page, *only: str) -> list[str]:
    """What axe-core finds wrong with the page for people who see, hear or move otherwise (WCAG 2.2 A and AA), by
    the rules `only` or by all of them."""
    # Put in over the debugger's protocol, which the page's own policy does not concern.
    page.evaluate(files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8"))
    rules = list(only) or ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found: dict[str, Any] = page.evaluate("rules => axe.run({ runOnly: rules })", rules)
    return [f"{one['id']}: {[node['html'] for node in one['nodes']]}" for one in found["violations"]]
