"""The pages over real HTTP: who gets which, with what headers, and what no request can reach."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING

import pytest

from cortex_embed.server.pages import ASSETS, ROUTES, UI, prefers_html

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"
PATHS = ["/docs", *(f"/ui/{name}" for name in ASSETS)]
TOKEN = "t0ken-of-this-launch"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (BROWSER, True),
        ("text/html", True),
        ("TEXT/HTML", True),
        ("text/*", True),
        ("application/json;q=0.5, text/html", True),
        ("text/html;q=0.9, */*;q=0.8", True),
        ("text/html;level=1;q=0.4, application/json;q=0.3", True),
        ("*/*", False),
        ("", False),
        ("application/json", False),
        ("application/json, text/html", False),
        ("application/json, text/plain, */*", False),
        ("text/html;q=0.2, application/json;q=0.3", False),
        ("text/html;q=0, */*", False),
        ("text/html;q=lots", False),
        (";;,,q=", False),
    ],
)
def test_who_prefers_html(accept: str, expected: bool) -> None:
    assert prefers_html({"Accept": accept}) is expected


def test_who_does_not_say() -> None:
    assert not prefers_html({})


async def test_a_browser_gets_the_page_and_everybody_else_json(running: Running) -> None:
    for accept, kind in ((BROWSER, "text/html"), ("*/*", "application/json")):
        async with running.http.get("/", headers={"Accept": accept}) as reply:
            assert reply.status == 200
            assert reply.content_type == kind
            assert reply.headers["Vary"] == "Accept"
            body = await reply.read()
        async with running.http.head("/", headers={"Accept": accept}) as reply:
            assert reply.status == 200
            assert reply.content_type == kind
            assert reply.headers["Content-Length"] == str(len(body))
            assert await reply.read() == b""


@pytest.mark.parametrize("path", PATHS)
async def test_every_file_is_itself_and_locked_down(running: Running, path: str) -> None:
    name = path.removeprefix("/ui/") if path != "/docs" else "docs.html"
    reply, body = await running.get(path)
    assert reply.status == 200
    assert body == await asyncio.to_thread((UI / name).read_bytes)
    kinds = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
    assert reply.content_type == kinds.get(name.rpartition(".")[2], "image/svg+xml")
    assert reply.charset == "utf-8"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Cache-Control"] == "no-cache"
    policy = reply.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy


async def test_what_is_known_is_not_sent_again(running: Running) -> None:
    reply, _ = await running.get("/ui/app.js")
    for given in (reply.headers["ETag"], "*", f'"other", {reply.headers["ETag"]}'):
        async with running.http.get("/ui/app.js", headers={"If-None-Match": given}) as again:
            assert again.status == 304
            assert again.headers["ETag"] == reply.headers["ETag"]
            assert "default-src" in again.headers["Content-Security-Policy"]
            assert await again.read() == b""
    async with running.http.get("/ui/app.js", headers={"If-None-Match": '"other"'}) as changed:
        assert changed.status == 200
        assert changed.headers["ETag"] == reply.headers["ETag"]


@pytest.mark.parametrize(
    "target",
    [
        "/ui/",
        "/ui/index.html",
        "/ui/nothing.js",
        "/ui/../pages.py",
        "/ui/%2e%2e/pages.py",
        "/ui/..%2fpages.py",
        "/ui//etc/passwd",
        "/ui/app.js%00",
        "/ui/app.js/",
        "/docs/",
    ],
)
async def test_nothing_else_is_served(running: Running, target: str) -> None:
    reader, writer = await running.raw()
    writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    assert re.match(rb"HTTP/1.1 40[04] ", answer), answer[:100]
    writer.close()


async def test_a_page_needs_no_token_and_gives_nothing_away(start: Start) -> None:
    async with start(token=TOKEN) as running:
        for path in ("/", *PATHS):
            async with running.http.get(path, headers={"Accept": BROWSER}) as reply:
                assert reply.status == 200, path
                text = await reply.text()
            assert "Maker/Tiny-Model" not in text
            assert TOKEN not in text
        assert (await running.get("/"))[0].status == 401
        for path in ("/", "/docs", "/ui/app.js"):  # only reading is open
            reply, _ = await running.post(path, {"texts": ["a"]}, headers={"Accept": BROWSER})
            assert reply.status == 401, path
        async with running.http.get("/embed", headers={"Accept": BROWSER}) as reply:
            assert reply.status == 401
        rebound = {"Accept": BROWSER, "Host": "evil.example"}
        async with running.http.get("/", headers=rebound) as reply:
            assert reply.status == 403


def test_the_table_is_the_directory() -> None:
    on_disk = {path.name for path in UI.iterdir()}
    assert on_disk == {*ASSETS, "index.html", "docs.html"}
    assert {route.path for route in ROUTES} == set(PATHS)


def test_the_pages_are_small() -> None:
    assert sum(path.stat().st_size for path in UI.iterdir()) < 60 * 2**10


@pytest.mark.parametrize("name", [*ASSETS, "index.html", "docs.html"])
def test_no_file_asks_anybody_else_or_writes_markup(name: str) -> None:
    text = (UI / name).read_text(encoding="utf-8")
    addresses = set(re.findall(r"https?://[^\s\"'`$]+", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://127.0.0.1:8121"}  # names, no links
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
    assert not re.search(r"<[a-z][^>]*\s(?:style|on[a-z]+)=", text), "the policy forbids inline"
