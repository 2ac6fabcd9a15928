"""A reply with vectors as bytes, for the ways that have no response of aiohttp's.

It must write what aiohttp would, header for header: a client must not see which way it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from aiohttp.helpers import rfc822_formatted_time

from cortex_embed.server.middleware import ID_HEADER, SERVER, new_id
from cortex_embed.server.route import JSON

if TYPE_CHECKING:
    from collections.abc import Mapping


class Head(NamedTuple):
    """All but the request's id and the length of the body, which go between."""

    before_id: str
    before_length: str
    after: str

    @classmethod
    def of(cls, headers: Mapping[str, str], *, closes: bool) -> Head:
        """With `headers` besides those that every reply has; `closes` says that it is the last."""
        own = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
        close = "Connection: close\r\n" if closes else ""
        return cls(
            f"HTTP/1.1 200 OK\r\n{own}Content-Type: {JSON}\r\n{ID_HEADER}: ",
            f"\r\nServer: {SERVER}\r\nContent-Length: ",
            f"\r\nDate: {rfc822_formatted_time()}\r\n{close}\r\n",
        )

    def reply(self, *body: bytes) -> bytes:
        """With `body`, which may come in pieces, and an id of its own."""
        length = sum(map(len, body))
        head = f"{self.before_id}{new_id()}{self.before_length}{length}{self.after}"
        return b"".join((head.encode("latin-1"), *body))
