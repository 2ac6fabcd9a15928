"""A small HTTP/1.1 client for measuring: keep-alive, prebuilt requests, little work a response.

It exists because a general client costs more time a request than a fast server does, and would
be what is measured. It must never count an answer that it did not check: every status, and in
the first answer of a run every vector.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cortex_embed.errors import TargetError, UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

_HEAD_END = b"\r\n\r\n"
_SHOWN = 300
_PATIENCE = 120.0


@dataclass(slots=True)
class Response:
    """A complete response; `closes` means that the server ends the connection after it.

    It came so many `seconds` after its request was sent.
    """

    status: int
    body: bytes
    closes: bool
    seconds: float = 0.0


class ResponseParser:
    """Bytes of a connection into responses, one at a time (RFC 9112)."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._status = 0
        self._body_at = -1
        self._length: int | None = None
        self._chunked = False
        self._closes = False
        self._chunks = bytearray()

    @property
    def empty(self) -> bool:
        return not self._buffer and self._body_at < 0

    def feed(self, data: bytes) -> Response | None:
        """Take `data`; the response, once complete. Raises ValueError for what is not HTTP."""
        self._buffer += data
        while self._body_at < 0:
            end = self._buffer.find(_HEAD_END)
            if end < 0:
                return None
            self._read_head(bytes(self._buffer[:end]))
            del self._buffer[: end + 4]
            if self._status >= 200:
                self._body_at = 0
        if self._chunked:
            return self._read_chunks()
        if self._length is None or len(self._buffer) < self._length:
            return None
        return self._finish(bytes(self._buffer[: self._length]), self._length)

    def end(self) -> Response | None:
        """The connection was closed: that ends a body of no stated length, and no other."""
        if self._body_at == 0 and self._length is None and not self._chunked:
            return self._finish(bytes(self._buffer), len(self._buffer))
        return None

    def _read_head(self, head: bytes) -> None:
        start, _, rest = head.partition(b"\r\n")
        version, _, status = start.partition(b" ")
        if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
            raise ValueError(f"not an HTTP/1.1 response: {start[:80]!r}")
        self._status = int(status[:3])
        self._length, self._chunked = None, False
        connection = b"close" if version == b"HTTP/1.0" else b""
        for line in rest.split(b"\r\n"):
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"content-length":
                self._length = int(value)
            elif name == b"transfer-encoding":
                self._chunked = b"chunked" in value.lower()
            elif name == b"connection":
                connection = value.strip().lower()
        if self._status in {204, 304}:
            self._length, self._chunked = 0, False
        self._closes = connection == b"close" or (self._length is None and not self._chunked)

    def _read_chunks(self) -> Response | None:
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return None
            size = int(self._buffer[:end].split(b";")[0], 16)
            if size == 0:
                return self._read_trailers(end + 2)
            if len(self._buffer) < end + size + 4:
                return None
            self._chunks += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + size + 4]

    def _read_trailers(self, at: int) -> Response | None:
        while True:
            end = self._buffer.find(b"\r\n", at)
            if end < 0:
                return None
            if end == at:
                body, self._chunks = bytes(self._chunks), bytearray()
                return self._finish(body, end + 2)
            at = end + 2

    def _finish(self, body: bytes, consumed: int) -> Response:
        del self._buffer[:consumed]
        self._body_at = -1
        return Response(self._status, body, self._closes)


class _Connection(asyncio.Protocol):
    """One connection with at most one request in flight."""

    def __init__(self) -> None:
        self._parser = ResponseParser()
        self._waiter: asyncio.Future[Response] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._sent = 0.0
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - what TCP gives
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            response = self._parser.feed(data)
        except ValueError as why:
            self._settle(TargetError(f"The server's answer is not HTTP/1.1: {why}."))
            return
        if response is not None:
            self._settle(response)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        response = self._parser.end()
        self._settle(response or exc or ConnectionResetError("the server closed the connection"))

    def _settle(self, outcome: Response | Exception) -> None:
        waiter, self._waiter = self._waiter, None
        if self._patience is not None:
            self._patience.cancel()
        if waiter is None or waiter.done():
            return
        if isinstance(outcome, Response):
            # Here, before the event loop turns to whoever waits: that is not the server's time.
            outcome.seconds = time.perf_counter() - self._sent
            waiter.set_result(outcome)
        else:
            waiter.set_exception(outcome)

    async def exchange(self, request: bytes) -> Response:
        """Send `request`, await its response. Raises OSError, TargetError."""
        if self.transport is None:
            raise ConnectionResetError("the connection is closed")
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        # A timer of its own: `asyncio.timeout` takes as long as reading the response.
        self._patience = loop.call_later(_PATIENCE, self._settle, TimeoutError())
        self._sent = time.perf_counter()
        self.transport.write(request)
        return await self._waiter

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()


class HttpClient:
    """Keep-alive connections to one base URL, by slot."""

    def __init__(self, base: str, headers: Sequence[str] = ()) -> None:
        """`base` as in OpenAI's clients: `http://host:port/v1`. Raises UsageError."""
        try:
            parts = urlsplit(base)
            port = parts.port
        except ValueError as why:
            raise UsageError(f"--url: {base!r} is not a URL: {why}.") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"--url: {base!r} must be like http://127.0.0.1:8121/v1.")
        self._host = parts.hostname
        self._tls = parts.scheme == "https"
        self._port = port or (443 if self._tls else 80)
        self._path = parts.path.rstrip("/")
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.where = f"{parts.scheme}://{host}:{self._port}{self._path}"
        self._fixed = "".join(f"{line}\r\n" for line in (f"Host: {host}:{self._port}", *headers))
        self._connections: dict[int, _Connection] = {}

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request to `path` below the base."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._fixed}Accept: application/json\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode("latin-1") + body

    async def send(self, slot: int, request: bytes) -> Response:
        """Exchange on the connection of `slot`, opened anew where it was closed.

        Raises TargetError when the server cannot be reached or does not answer.
        """
        connection = self._connections.get(slot)
        try:
            if connection is None or connection.transport is None:
                connection = self._connections[slot] = await self._connect()
                response = await connection.exchange(request)
            else:
                try:
                    response = await connection.exchange(request)
                except ConnectionError:  # closed while it was idle, which a server may do
                    connection = self._connections[slot] = await self._connect()
                    response = await connection.exchange(request)
        except TimeoutError:
            raise TargetError(f"{self.where} did not answer within {_PATIENCE:.0f} s.") from None
        except OSError as why:
            raise TargetError(
                f"{self.where} cannot be reached: {why.strerror or why}. Is the server running "
                "there, and does the URL end in /v1?"
            ) from None
        if response.closes:
            connection.close()
            del self._connections[slot]
        return response

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_PATIENCE):
            _, connection = await loop.create_connection(
                _Connection, self._host, self._port, ssl=self._context()
            )
        return connection

    def _context(self) -> ssl.SSLContext | None:
        if not self._tls:
            return None
        import ssl

        return ssl.create_default_context()

    async def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()
        await asyncio.sleep(0)


def refused(response: Response) -> bool:
    """Whether the server shed load (429, 503), which is data rather than a failure."""
    return response.status in {429, 503}


def require_success(response: Response, where: str, way_out: str = "") -> None:
    """Raises TargetError with the server's own words unless the status is 200."""
    if response.status != 200:
        text = response.body[:_SHOWN].decode("utf-8", "replace").strip()
        raise TargetError(f"{where} answered {response.status}: {text or '(empty body)'}{way_out}")


def tokens_of(body: bytes) -> int | None:
    """`usage.prompt_tokens` of an OpenAI answer, found without parsing its vectors."""
    at = body.rfind(b'"prompt_tokens"')
    if at < 0:
        return None
    digits = body[at + 15 : at + 40].lstrip(b" :\t\r\n")
    end = next((n for n, c in enumerate(digits) if not 48 <= c <= 57), len(digits))
    return int(digits[:end]) if end else None


def vectors_of(body: bytes, count: int, where: str) -> list[Any]:
    """The `embedding` of each of `count` items, parsed. Raises TargetError if it is not that."""
    import json

    try:
        items = sorted(json.loads(body)["data"], key=lambda item: item["index"])
        vectors = [item["embedding"] for item in items]
    except (ValueError, KeyError, TypeError):
        text = body[:_SHOWN].decode("utf-8", "replace")
        raise TargetError(f"{where} did not answer as OpenAI's embeddings do: {text}") from None
    if len(vectors) != count or not all(vectors):
        raise TargetError(f"{where} gave {len(vectors)} vectors for {count} texts.")
    return vectors
