"""One headless Chromium for all tests of this folder: Debian's, by Playwright. Without it they fail, and never skip."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
SIZES = [(390, 844), (1440, 900)]


@pytest.fixture(scope="session")
def browser():
    """The browser; each test opens contexts of its own."""
    from playwright.sync_api import sync_playwright

    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} is not here; apt-get install --no-install-recommends chromium, or set CHROMIUM")
    with sync_playwright() as started:
        running = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield running
        running.close()


@pytest.fixture
def opened(browser):
    """`opened(path, ...)` shows a file; whatever it complains of, or asks of the network, fails the test at its end."""
    contexts, trouble = [], []

    def show(path, width=1440, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: trouble.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda asked: trouble.append(asked.url) if not ours(asked.url, path) else None)
        page.goto(Path(path).absolute().as_uri())
        return page

    yield show
    for context in contexts:
        context.close()
    assert trouble == []


def ours(url, path):
    return url.startswith("data:") or url.partition("#")[0] == Path(path).absolute().as_uri()


@pytest.fixture
def accessible():
    """`accessible(page)` fails where axe finds something serious or critical."""
    from axe_playwright_python.sync_playwright import Axe

    def check(page):
        found = Axe().run(page).response["violations"]
        bad = [one for one in found if one["impact"] in ("serious", "critical")]
        assert [(one["id"], [node["html"][:120] for node in one["nodes"]][:3]) for one in bad] == []

    return check
