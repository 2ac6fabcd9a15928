"""A batcher with a fake engine whose every step the test controls."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from cortex_embed.providers.batcher import MicroBatcher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from cortex_embed.metrics import Metrics

Ids = np.ndarray[Any, np.dtype[np.int64]]
DIMENSIONS = 3


def text(value: int, length: int = 1) -> Ids:
    return np.full(length, value, dtype=np.int64)


def vectors_of(batch: list[Ids]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.array([[ids[0], len(ids), 1] for ids in batch], dtype=np.float32)


class FakeEngine:
    """Remembers its batches; waits for `gate` when that is closed; fails on ids in `poison`."""

    def __init__(self) -> None:
        self.batches: list[list[Ids]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.poison: set[int] = set()
        self.entered = threading.Semaphore(0)

    def __call__(self, batch: list[Ids]) -> np.ndarray[Any, np.dtype[np.float32]]:
        self.batches.append(batch)
        self.entered.release()
        assert self.gate.wait(10)
        if self.poison & {int(ids[0]) for ids in batch}:
            raise RuntimeError("poisoned")
        return vectors_of(batch)


async def until(what: Callable[[], bool]) -> None:
    """Threads change it, and tell nobody."""
    for _ in range(10_000):
        if what():
            return
        await asyncio.sleep(0.001)
    raise TimeoutError


@asynccontextmanager
async def batching(
    engine: Callable[[list[Ids]], Any],
    *,
    workers: int = 1,
    budget: int = 64,
    queue: int = 10_000,
    alone: Callable[[list[Ids]], Any] | None = None,
    padded: bool = True,
    enough: int = 0,
    metrics: Metrics | None = None,
) -> AsyncIterator[MicroBatcher]:
    batcher = MicroBatcher(
        engine,
        run_alone=alone,
        padded=padded,
        enough_tokens=enough,
        dimensions=DIMENSIONS,
        workers=workers,
        max_batch_tokens=budget,
        max_queue_tokens=queue,
        metrics=metrics,
    )
    try:
        yield batcher
    finally:
        if isinstance(engine, FakeEngine):
            engine.gate.set()
        await batcher.close()


async def entered(engine: FakeEngine) -> None:
    """Until a worker is inside the engine."""
    assert await asyncio.get_running_loop().run_in_executor(None, engine.entered.acquire, True, 10)
