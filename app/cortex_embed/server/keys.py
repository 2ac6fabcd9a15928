"""What handlers and middleware find in the application, typed.

It exists so that both can name the same state without importing each other; it must never
grow behaviour beyond counting.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed.config import Settings
from cortex_embed.server.cors import Cors
from cortex_embed.server.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortex_embed.server.trace import Trace
    from cortex_embed.service import EmbeddingService
    from cortex_embed.wire.dialect import ErrorDialect


class Traffic:
    """The requests whose handler is running, and a way to wait until there are none."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._uses = 0
        self._idle = asyncio.Event()
        self._unused = asyncio.Event()
        self._idle.set()
        self._unused.set()
        self._last_use = time.monotonic()

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count one request for as long as the block runs."""
        self._in_flight += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._in_flight -= 1
            if not self._in_flight:
                self._idle.set()

    @contextmanager
    def use(self) -> Iterator[None]:
        """Count a request that shows that somebody needs this server."""
        self._uses += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._uses -= 1
            self._last_use = time.monotonic()
            if not self._uses:
                self._unused.set()

    async def idle(self) -> None:
        """Wait until no handler runs."""
        await self._idle.wait()

    async def unused_for(self, seconds: float) -> None:
        """Wait until there was no use for so long, from now on."""
        self._last_use = time.monotonic()
        while True:
            await self._unused.wait()
            left = self._last_use + seconds - time.monotonic()
            if left <= 0:
                return
            await asyncio.sleep(left)


# The second argument is for people and for mypy; aiohttp does not check it, and the real
# class would be imported for nothing.
SERVICE: web.AppKey[EmbeddingService] = web.AppKey("service")
SETTINGS = web.AppKey("settings", Settings)
TRAFFIC = web.AppKey("traffic", Traffic)
GUARD = web.AppKey("guard", Guard)
CORS = web.AppKey("cors", Cors)
REQUEST_ID: web.RequestKey[str] = web.RequestKey("request_id")
TRACE: web.RequestKey[Trace | None] = web.RequestKey("trace")
DIALECT: web.RequestKey[ErrorDialect] = web.RequestKey("dialect")
"""Whose words the body uses, where the path alone does not tell; errors are answered in it."""
LOADED = web.AppKey("loaded", asyncio.Event)
"""Set when waiting for the model is over: it is loaded, or never will be."""
