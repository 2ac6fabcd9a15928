"""What handlers and middleware find in the application, typed.

It exists so that both can name the same state without importing each other; it must never
grow behaviour beyond counting.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed.config import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortex_embed.service import EmbeddingService


class Traffic:
    """The requests whose handler is running, and a way to wait until there are none."""

    def __init__(self) -> None:
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

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

    async def idle(self) -> None:
        """Wait until no handler runs."""
        await self._idle.wait()


# The second argument is for people and for mypy; aiohttp does not check it, and the real
# class would be imported for nothing.
SERVICE: web.AppKey[EmbeddingService] = web.AppKey("service")
SETTINGS = web.AppKey("settings", Settings)
TRAFFIC = web.AppKey("traffic", Traffic)
