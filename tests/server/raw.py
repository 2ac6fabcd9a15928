"""Requests as bytes on a connection of their own, and what two replies have in common."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.server.conftest import FakeProvider, Running

Connect = Callable[["Running"], Awaitable["Client"]]

_OWN_OF_EACH = {b"x-request-id", b"date"}
_COHERES_ID = rb'"id":"[0-9a-f-]{36}",'
Reply = tuple[int, dict[bytes, bytes], bytes]


class Client:
    """One connection that sends bytes as they are."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer

    async def read(self) -> Reply:
        async with asyncio.timeout(10):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status, *lines = head[:-4].split(b"\r\n")
            headers = {
                name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)
            }
            body = await self._reader.readexactly(int(headers[b"content-length"]))
        return int(status.split()[1]), headers, body

    async def ask(self, *pieces: bytes) -> Reply:
        for number, piece in enumerate(pieces):
            if number:
                await asyncio.sleep(0.02)  # so that the server reads them one at a time
            self.writer.write(piece)
        return await self.read()

    async def is_ended(self) -> bool:
        async with asyncio.timeout(10):
            return await self._reader.read() == b""


def request(path: str, body: object, *more: str) -> bytes:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = (f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}", *more)
    return "\r\n".join((*lines, "\r\n")).encode() + data


def text(value: str, *more: str, **fields: object) -> bytes:
    return request("/v1/embeddings", {"model": "tiny", "input": value} | fields, *more)


def shared(reply: Reply) -> Reply:
    """What two replies to the same question have in common."""
    status, headers, body = reply
    body = re.sub(_COHERES_ID, b"", body)
    return status, {k: v for k, v in headers.items() if k not in _OWN_OF_EACH}, body


async def hold(provider: FakeProvider, client: Client, sent: bytes) -> None:
    """Send what the provider has in hand when this returns, and keeps until its gate is open."""
    provider.gate.clear()
    provider.started.clear()
    client.writer.write(sent)
    await asyncio.wait_for(provider.started.wait(), 5)
