"""The pages in a real Chromium, against a real server. `nox -s browser` runs these, nothing else:
they need playwright and a browser, which the other tests do not.

A page may not say anything on the console, and may not ask anybody but its server. Both are
checked for every test when it ends.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.e2e.process import Client, Served, command

ROOT = Path(__file__).resolve().parent.parent.parent
SCREENSHOTS = ROOT / "dist" / "screenshots"
# No name resolves but the server's address: what a page should not ask for cannot be had.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"


@dataclass
class Witness:
    """What pages said and asked for. `allowed` are console messages that a test provokes."""

    said: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    allowed: tuple[str, ...] = ()

    def watch(self, context: BrowserContext) -> None:
        context.on("request", lambda request: self.asked.append(request.url))
        context.on(
            "console",
            lambda message: (
                self.said.append(f"{message.type}: {message.text}")
                if message.type in {"error", "warning"}
                else None
            ),
        )
        context.on("weberror", lambda error: self.said.append(f"uncaught: {error.error}"))

    def judge(self, port: int) -> None:
        unexpected = [
            said for said in self.said if not any(allowed in said for allowed in self.allowed)
        ]
        assert unexpected == []
        hosts = {urlsplit(url).netloc for url in self.asked if not url.startswith("data:")}
        assert hosts == {f"127.0.0.1:{port}"}


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser that CHROMIUM names: `nox -s browser` finds one, or installs it."""
    chromium = os.environ.get("CHROMIUM")
    if not chromium:
        pytest.fail("CHROMIUM names no browser; run `nox -s browser`, or set it to one")
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium, args=[OFFLINE])
        yield one
        one.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """`cortex-embed serve` with the model that this checkout carries, ready."""
    served = Served([*command(), "serve", "--port", "0"], tmp_path_factory.mktemp("home"))
    try:
        yield served.ready()
    finally:
        served.close()
    assert "Traceback" not in served.stderr


@pytest.fixture
def witness() -> Witness:
    return Witness()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, server: Client, witness: Witness) -> Iterator[Open]:
    """`open_page("/docs", color_scheme="dark")`: a page in a browser of its own."""
    contexts: list[BrowserContext] = []

    def opened(path: str = "/", *, at: Client = server, **options: object) -> Page:
        options = {"viewport": {"width": 1280, "height": 900}, **options}
        context = browser.new_context(base_url=at.url, **options)
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        context.set_default_timeout(15_000)
        witness.watch(context)
        contexts.append(context)
        page = context.new_page()
        page.goto(path)
        return page

    yield opened
    ports = {urlsplit(page.url).port for context in contexts for page in context.pages}
    for context in contexts:
        context.close()
    assert len(ports) == 1
    witness.judge(ports.pop() or 0)


@pytest.fixture
def page(open_page: Open) -> Page:
    """The playground, which knows by now what runs."""
    one = open_page()
    one.locator("#phase.ok").wait_for()
    return one


def embed(page: Page) -> None:
    """Press Embed and wait until everything is drawn."""
    page.locator("#embed").click()
    page.locator("#ranking li").first.wait_for()
