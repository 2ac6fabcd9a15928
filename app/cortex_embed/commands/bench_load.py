"""Closed-loop load on the service in this process, without a socket.

It exists to tell what the engine does from what HTTP adds. It must never open a connection;
bench_loop.py is the load on a server.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from cortex_embed.commands.bench_window import TICK, Load, Sample, Window
from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import NotReadyError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cortex_embed.service import EmbeddingService


class ServiceTarget:
    """The service in this process: no socket, no JSON."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service
        self._requests: list[EmbedRequest] = []

    @property
    def title(self) -> str:
        """What was measured, for people; complete once it is open."""
        model = self._service.models()[0]
        facts = model.facts
        # Not before it is loaded: which engine can run it may turn out then.
        how = [facts["precision"]] + ([f"engine {facts['engine']}"] if "engine" in facts else [])
        reason = f": {facts['engine_reason']}" if facts.get("engine_reason") else ""
        return f"in process, {model.spec.id} ({', '.join(how)}{reason})"

    async def open(self, batches: Sequence[Sequence[str]]) -> None:
        """Load, and have the first batch embedded. Raises EmbedError."""
        await self._service.load()
        self._requests = [EmbedRequest(texts=tuple(batch)) for batch in batches]
        await self._service.embed(self._requests[0])

    async def send(self, number: int) -> int | None:
        """Have batch `number` (modulo their count) embedded: its tokens, None where refused."""
        request = self._requests[number % len(self._requests)]
        try:
            return (await self._service.embed(request)).tokens
        except (OverloadedError, NotReadyError):
            return None

    async def close(self) -> None:
        await self._service.close()


async def run(
    target: ServiceTarget, batches: Sequence[Sequence[str]], loads: Iterable[Load]
) -> list[Sample]:
    """Open `target`, measure each of `loads`, close it. Raises EmbedError."""
    try:
        await target.open(batches)
        return [await measure(target, load) for load in loads]
    finally:
        await target.close()


async def measure(target: ServiceTarget, load: Load) -> Sample:
    """Put `load` on the opened `target`. Raises TargetError, or what a request fails with."""
    window = Window(load)
    counter = iter(range(1 << 62))

    async def client() -> None:
        while window.ended is None:
            started = time.perf_counter()
            tokens = await target.send(next(counter))
            now = time.perf_counter()
            if tokens is None:
                window.refused(now)
            else:
                window.answered(now, now - started, tokens)
            if load.pause or tokens is None:
                await asyncio.sleep(load.rest)

    async def clock() -> None:
        while window.ended is None:
            await asyncio.sleep(TICK)
            window.look(time.perf_counter())

    try:
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(client()) for _ in range(load.concurrency)]
            ticker = group.create_task(clock())
            await asyncio.wait(clients, return_when=asyncio.FIRST_EXCEPTION)
            ticker.cancel()
    except* Exception as failures:
        raise _first(failures) from None
    return window.sample()


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    why = failures.exceptions[0]
    return _first(why) if isinstance(why, BaseExceptionGroup) else why
