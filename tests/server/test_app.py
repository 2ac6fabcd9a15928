"""The application as it is put together: every route of the table, and the invitation to send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from cortex_embed.config import Settings
from cortex_embed.server.app import build_app
from cortex_embed.server.keys import SETTINGS, TRAFFIC
from cortex_embed.server.routes import ROUTES
from cortex_embed.service import EmbeddingService

if TYPE_CHECKING:
    from tests.server.conftest import FakeProvider, Running, Start


async def test_every_row_is_routed(provider: FakeProvider) -> None:
    app = build_app(Settings(max_body_bytes=2048), EmbeddingService([provider]))
    routed = {(r.method, r.resource.canonical) for r in app.router.routes() if r.resource}
    for route in ROUTES:
        path = route.path.replace("{id:.+}", "{id}")
        assert (route.method, path) in routed
        assert (("HEAD", path) in routed) == (("GET", path) in routed)
    assert app[SETTINGS].max_body_bytes == 2048
    assert app[TRAFFIC].in_flight == 0


async def test_curl_is_invited_to_send(running: Running) -> None:
    reader, writer = await running.raw()
    body = b'{"texts": ["a"]}'
    writer.write(
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
    )
    assert await asyncio.wait_for(reader.readline(), 5) == b"HTTP/1.1 100 Continue\r\n"
    await reader.readline()
    writer.write(body)
    assert await asyncio.wait_for(reader.readline(), 5) == b"HTTP/1.1 200 OK\r\n"
    writer.close()


async def test_other_expectations_are_ignored(running: Running) -> None:
    reply, _ = await running.post("/embed", {"texts": ["a"]}, headers={"Expect": "a miracle"})
    assert reply.status == 200


async def test_a_body_over_the_limit_is_not_invited(start: Start) -> None:
    async with start(max_body_bytes=1024) as running:
        reader, writer = await running.raw()
        writer.write(
            b"POST /embed HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n"
            b"Content-Length: 5000\r\n\r\n"
        )
        assert b" 413 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
