"""Names, origins and tokens, over real HTTP and by themselves."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from cortex_embed.errors import AuthenticationError, ForbiddenError
from cortex_embed.server import pages
from cortex_embed.server.guard import PROBES, Guard
from cortex_embed.server.routes import ROUTES
from cortex_embed.server.sockets import Listener, bind
from cortex_embed.wire import openai

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start

REFUSED = AuthenticationError("m")
TOKEN = "t0ken-of-this-launch"


def headers(*pairs: tuple[str, str]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


@pytest.fixture
def local() -> Guard:
    return Guard((), frozenset({"localhost", "127.0.0.1", "::1", "mine.test"}))


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8121",
        "LocalHost:1",
        "localhost.",
        "127.0.0.1",
        "127.0.0.1:65535",
        "[::1]",
        "[::1]:8121",
        "mine.test:80",
    ],
)
def test_names_of_this_machine(local: Guard, host: str) -> None:
    local.check("/embed", headers(("Host", host), ("Origin", f"http://{host}")))
    local.check("/embed", headers(("Host", host)))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8121",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "localhost@evil.example",
        "evil.example#localhost",
        "localhost:80:80",
        "[::2]",
        "::1",
        "",
        "local host",
    ],
)
def test_other_names_are_refused(local: Guard, host: str) -> None:
    with pytest.raises(ForbiddenError, match=r"ask for 127\.0\.0\.1"):
        local.check("/livez", headers(("Host", host)))
    with pytest.raises(ForbiddenError, match="page"):
        local.check("/livez", headers(("Host", "localhost"), ("Origin", f"http://{host}")))
    with pytest.raises(ForbiddenError):  # a second one does not hide the first
        local.check("/", headers(("Host", "localhost"), ("Host", host)))


@pytest.mark.parametrize("origin", ["null", "", "localhost", "file://", "http:/localhost"])
def test_origins_that_are_none(local: Guard, origin: str) -> None:
    with pytest.raises(ForbiddenError):
        local.check("/", headers(("Host", "localhost"), ("Origin", origin)))


def test_a_refusal_does_not_quote_at_length(local: Guard) -> None:
    with pytest.raises(ForbiddenError) as caught:
        local.check("/", headers(("Host", "x" * 5000)))
    assert len(caught.value.message) < 400


def test_only_loopback_is_guarded() -> None:
    everywhere = bind("0.0.0.0", 0)  # noqa: S104 - that is the point
    try:
        Guard.of(everywhere, ()).check("/", headers(("Host", "evil.example")))
    finally:
        everywhere.close()
    listener = bind("127.0.0.1", 0)
    try:
        named = Listener(listener.sockets, "Mine.Test", listener.port)
        Guard.of(named, ()).check("/", headers(("Host", "mine.test")))
        with pytest.raises(ForbiddenError):
            Guard.of(named, ()).check("/", headers(("Host", "evil.example")))
    finally:
        listener.close()


@pytest.mark.parametrize(
    "given",
    [
        ("Authorization", f"Bearer {TOKEN}"),
        ("authorization", f"bearer  {TOKEN}"),
        ("api-key", TOKEN),
        ("x-api-key", TOKEN),
        ("Authorization", TOKEN),  # LlamaIndex's client for TEI
        ("Api-Key", TOKEN),
    ],
)
def test_the_token_opens(given: tuple[str, str]) -> None:
    Guard((TOKEN,)).check("/embed", headers(given))
    Guard(("other", TOKEN, "third")).check("/embed", headers(given))


@pytest.mark.parametrize(
    "given",
    [
        ("Authorization", ""),
        ("Authorization", "Bearer"),
        ("Authorization", "Bearer "),
        ("Authorization", f"Token {TOKEN}"),
        ("Authorization", f"Basic {TOKEN}"),
        ("Authorization", f"Bearer {TOKEN}x"),
        ("Authorization", f"Bearer {TOKEN[:-1]}"),
        ("Authorization", "Bearer \udcff"),
        ("api-key", ""),
        ("api-key", "other"),
        ("X", TOKEN),
    ],
)
def test_anything_else_does_not(given: tuple[str, str]) -> None:
    with pytest.raises(AuthenticationError) as caught:
        Guard((TOKEN, "second")).check("/embed", headers(given))
    assert TOKEN not in caught.value.message
    assert "Authorization: Bearer" in caught.value.message


def test_a_page_needs_no_token_but_a_name_of_this_machine() -> None:
    guard = Guard(TOKEN, frozenset({"localhost"}))
    guard.check("/docs", headers(("Host", "localhost")), is_page=True)
    with pytest.raises(AuthenticationError):
        guard.check("/docs", headers(("Host", "localhost")))
    with pytest.raises(ForbiddenError):
        guard.check("/docs", headers(("Host", "evil.example")), is_page=True)


async def test_every_route_but_probes_and_pages_asks_for_it(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with start(token=TOKEN, access_log=True) as running:
        for route in ROUTES:
            path = route.path.replace("{id:.+}", "tiny")
            async with running.http.request(route.method, path) as reply:
                body = await reply.read()
                if path in PROBES or route in pages.ROUTES:
                    assert reply.status == 200
                    continue
                assert reply.status == 401, path
                assert reply.headers["WWW-Authenticate"] == "Bearer"
            document = json.loads(body)
            assert "Authorization: Bearer" in str(document)
            assert document.keys() == json.loads(route.dialect.encode_error(REFUSED)).keys()
            if route.dialect is openai:
                assert document["error"]["code"] == "invalid_api_key"
                assert document["error"]["type"] == "invalid_request_error"
        assert (await running.get("/nothing"))[0].status == 401
        auth = {"Authorization": f"Bearer {TOKEN}"}
        request = {"texts": ["a"], "model": "tiny", "input": "a"}
        for path in ("/embed", "/v1/embeddings"):
            reply, _ = await running.post(path, request, headers=auth)
            assert reply.status == 200
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
async def test_a_rebound_name_is_refused_in_the_dialect(running: Running, path: str) -> None:
    for odd in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
        reply, body = await running.post(path, {"texts": ["a"]}, headers=odd)
        assert reply.status == 403
        error = json.loads(body)["error"]
        assert "evil.example" in (error["message"] if "v1" in path else error)


async def test_a_stranger_is_not_invited_to_send(start: Start) -> None:
    async with start(token=TOKEN) as running:
        reader, writer = await running.raw()
        writer.write(
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: 50\r\n\r\n"
        )
        assert b" 401 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
