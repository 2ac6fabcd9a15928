"""HTTP/1.1 answers for measuring: read with little work, whatever their shape.

It exists because a general parser costs more time an answer than a fast server does, and would
be what is measured. It must never take for an answer what is part of one, or more than one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cortex_embed.errors import TargetError

_HEAD_END = b"\r\n\r\n"
_COMMON = b"HTTP/1.1 200 "
_LENGTH = b"\r\ncontent-length:"
_SHOWN = 300


@dataclass(slots=True)
class Response:
    """A complete response; `closes` means that the server ends the connection after it."""

    status: int
    body: bytes
    closes: bool


def plain(data: bytes) -> Response | None:
    """The response where `data` is one whole one of the kind that nearly all are.

    None says nothing: ResponseParser tells what the rest are.
    """
    end = data.find(_HEAD_END)
    if end < 0 or not data.startswith(_COMMON):
        return None
    head = data[: end + 2].lower()
    at = head.find(_LENGTH)
    if at < 0 or b"\r\ntransfer-encoding:" in head:
        return None
    connection = head.find(b"\r\nconnection:")
    if connection >= 0 and not head.startswith(b"\r\nconnection: keep-alive\r\n", connection):
        return None
    length = head[at + len(_LENGTH) : head.find(b"\r\n", at + 2)].strip()
    if not length.isdigit() or end + len(_HEAD_END) + int(length) != len(data):
        return None
    return Response(200, data[end + len(_HEAD_END) :], False)


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
        connection = {b"close"} if version == b"HTTP/1.0" else set()
        for line in rest.split(b"\r\n"):
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"content-length":
                self._length = _number(value.strip(), 10)
            elif name == b"transfer-encoding":
                self._chunked = b"chunked" in value.lower()
            elif name == b"connection":
                connection = {option.strip() for option in value.lower().split(b",")}
        if self._status in {204, 304}:
            self._length, self._chunked = 0, False
        self._closes = b"close" in connection or (self._length is None and not self._chunked)

    def _read_chunks(self) -> Response | None:
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                return None
            size = _number(bytes(self._buffer[:end]).split(b";")[0].strip(), 16)
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


def _number(digits: bytes, base: int) -> int:
    # `int` alone would take b"-1", b"1_0" and b"0x1".
    if not digits.isalnum() or (base == 16 and b"x" in digits.lower()):
        raise ValueError(f"not a length: {digits[:80]!r}")
    return int(digits, base)


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
