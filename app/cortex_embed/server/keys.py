"""What handlers and middleware find in the application, typed.

It exists so that both can name the same state without importing each other; it must never
grow behaviour beyond counting.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed.config import Settings
from cortex_embed.server.guard import Guard

if TYPE_CHECKING:
    from cortex_embed.server.fast_path import FastPath
    from cortex_embed.server.trace import Trace
    from cortex_embed.service import EmbeddingService
    from cortex_embed.wire.dialect import ErrorDialect


class Counter:
    """How many blocks are inside, one object for all: a generator's context manager takes three
    times as long, at every request."""

    __slots__ = ("count", "left_at", "none")

    def __init__(self) -> None:
        self.count = 0
        self.none = asyncio.Event()
        self.none.set()
        self.left_at = time.monotonic()

    def __enter__(self) -> None:
        if not self.count:
            self.none.clear()
        self.count += 1

    def __exit__(self, *_: object) -> None:
        self.leave(1)

    def leave(self, times: int) -> None:
        """As the end of so many blocks."""
        self.count -= times
        self.left_at = time.monotonic()
        if not self.count:
            self.none.set()


class Traffic:
    """The requests whose handler is running, and a way to wait until there are none."""

    def __init__(self) -> None:
        self.requests = Counter()
        """Counts a request for as long as a `with` block runs."""
        self.uses = Counter()
        """The same of those that show that somebody needs this server."""

    def enter(self) -> None:
        """A request that shows so is being handled, until `leave`."""
        self.requests.__enter__()
        self.uses.__enter__()

    def leave(self, times: int = 1) -> None:
        """So many such requests have been."""
        self.uses.leave(times)
        self.requests.leave(times)

    @property
    def in_flight(self) -> int:
        return self.requests.count

    async def idle(self) -> None:
        """Wait until no handler runs."""
        while self.requests.count:  # another may have begun before the wait was over
            await self.requests.none.wait()

    async def unused_for(self, seconds: float) -> None:
        """Wait until there was no use for so long, from now on."""
        self.uses.left_at = time.monotonic()
        while True:
            await self.uses.none.wait()
            left = self.uses.left_at + seconds - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)


# The second argument is for people and for mypy; aiohttp does not check it, and the real
# class would be imported for nothing.
SERVICE: web.AppKey[EmbeddingService] = web.AppKey("service")
SETTINGS = web.AppKey("settings", Settings)
TRAFFIC = web.AppKey("traffic", Traffic)
FAST: web.AppKey[FastPath | None] = web.AppKey("fast path")
GUARD = web.AppKey("guard", Guard)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id")
TRACE: web.RequestKey[Trace | None] = web.RequestKey("trace")
DIALECT: web.RequestKey[ErrorDialect] = web.RequestKey("dialect")
"""Whose words the body uses: the path's, unless it tells otherwise. Errors are answered in it."""
LOADED = web.AppKey("loaded", asyncio.Event)
"""Set when waiting for the model is over: it is loaded, or never will be."""
