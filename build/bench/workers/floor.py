"""The least that HTTP can cost with our engine: the same service behind less and less of a server.

    python floor.py MODEL PRECISION TEXT nothing CLIENTS SECONDS   figures as JSON, no server at all
    python floor.py MODEL PRECISION TEXT aiohttp|bytes PORT FILE   serve FILE's content on loopback

Every request has the service embed TEXT, and is answered with the content of FILE. `aiohttp` reads
each request whole and parses nothing; `bytes` does not even know HTTP: what looks like a request's
end is one. It must never be taken for a server.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web  # noqa: TID253 - this program is a server and nothing else

from cortex_embed.commands.bench_load import ServiceTarget, measure
from cortex_embed.commands.bench_window import Load
from cortex_embed.commands.serve import GARBAGE
from cortex_embed.composition import build_service
from cortex_embed.config import Settings
from cortex_embed.domain import EmbedRequest

if TYPE_CHECKING:
    from cortex_embed.service import EmbeddingService

_END = b"}"


async def nothing(service: EmbeddingService, text: str, clients: int, seconds: float) -> None:
    """Print the figures of so many callers in this process."""
    target = ServiceTarget(service)
    await target.open([(text,)])
    sample = await measure(target, Load(clients, 1, seconds))
    print(json.dumps(asdict(sample)))


async def in_aiohttp(service: EmbeddingService, text: str, port: int, body: bytes) -> None:
    """Serve for ever."""

    async def answer(request: web.Request) -> web.Response:
        if await request.read():
            await service.embed(EmbedRequest(texts=(text,)))
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


class _Bytes(asyncio.Protocol):
    """One connection."""

    def __init__(self, service: EmbeddingService, text: str, body: bytes) -> None:
        self._service = service
        self._request = EmbedRequest(texts=(text,))
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        self._reply = head.encode() + b"\r\n\r\n" + body
        self._given = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for mypy: it serves TCP
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._given += data
        if self._given.startswith(b"GET"):
            self._given = b""
            self._transport.write(self._reply)
        elif self._given.endswith(_END):
            self._given = b""
            task = asyncio.get_running_loop().create_task(self._answer())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self) -> None:
        await self._service.embed(self._request)
        self._transport.write(self._reply)


async def in_bytes(service: EmbeddingService, text: str, port: int, body: bytes) -> None:
    """Serve for ever."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Bytes(service, text, body), "127.0.0.1", port)
    await server.serve_forever()


async def main(model: str, precision: str, text: str, kind: str, *rest: str) -> None:
    service = build_service(Settings(model=(model,), precision=precision))
    await service.load()
    gc.freeze()  # this and the next as `serve` does
    gc.set_threshold(GARBAGE)
    if kind == "nothing":
        clients, seconds = rest
        await nothing(service, text, int(clients), float(seconds))
        await service.close()
    else:
        serve = {"aiohttp": in_aiohttp, "bytes": in_bytes}[kind]
        port, file = rest
        body = await asyncio.to_thread(Path(file).read_bytes)
        await serve(service, text, int(port), body)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
