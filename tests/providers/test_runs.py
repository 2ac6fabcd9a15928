"""What the micro-batcher builds on, of both kinds of threads, with a real engine."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cortex_embed.kernels.binding import HAS_QUEUE
from cortex_embed.providers.batcher import MicroBatcher
from cortex_embed.providers.native_engine import NativeEngine
from cortex_embed.providers.runs import ThreadedRuns
from tests.providers.batching import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from numpy.typing import NDArray

    from cortex_embed.models.artifact import Artifact
    from cortex_embed.providers.runs import Run, Runs

    Ids = NDArray[np.int64]

KINDS = ["threads", pytest.param("queue", marks=pytest.mark.skipif(
    not HAS_QUEUE, reason="this system has no queue of native runs"))]  # fmt: skip
both = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def engine(kernel_mean: Artifact, kernel_sets: tuple[str, ...]) -> NativeEngine:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    return NativeEngine(kernel_mean.graph_for("int8"), dimensions=kernel_mean.spec.dimensions)


def text(seed: int, length: int = 12) -> Ids:
    return np.random.RandomState(seed).randint(0, 400, length).astype(np.int64)


class Heard:
    """Counts how often it was told."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def made(kind: str, engine: NativeEngine, threads: int, told: Callable[[], object]) -> Runs:
    if kind == "threads":
        return ThreadedRuns(engine.run, engine.run, ThreadPoolExecutor(threads), told)
    assert engine.queue is not None
    return engine.queue(threads, told)


@asynccontextmanager
async def running(
    kind: str, engine: NativeEngine, threads: int = 2
) -> AsyncIterator[tuple[Runs, Heard]]:
    heard = Heard()
    runs = made(kind, engine, threads, heard)
    try:
        yield runs, heard
    finally:
        await asyncio.to_thread(runs.close)
        runs.release()


def vectors(run: Run) -> Any:
    assert run.seconds > 0
    found = run.outcome
    assert isinstance(found, np.ndarray)
    run.release()
    return found


@both
async def test_what_is_submitted_is_computed_and_told(kind: str, engine: NativeEngine) -> None:
    batches = [[text(n), text(n + 1, 3)] for n in range(40)]
    async with running(kind, engine) as (runs, heard):
        made = [runs.prepare(batch) for batch in batches]
        assert not any(run.seconds for run in made)
        for run in made:
            runs.submit(run, goes_on=False)
        await until(lambda: all(run.seconds for run in made) and heard.times > 0)
        for run, batch in zip(made, batches, strict=True):
            np.testing.assert_array_equal(vectors(run), engine.run(batch))


@both
async def test_an_offer_is_taken_after_a_run_and_can_be_taken_back(
    kind: str, engine: NativeEngine
) -> None:
    async with running(kind, engine) as (runs, _):
        assert not runs.take_back()
        first, second = runs.prepare([text(1, 40)]), runs.prepare([text(2)])
        runs.offer(second)
        await asyncio.sleep(0.05)
        assert (runs.has_offer, second.seconds) == (True, 0)  # nobody was at another run
        assert runs.take_back()
        assert not runs.has_offer
        runs.offer(second)
        runs.submit(first, goes_on=True)
        await until(lambda: second.seconds > 0)
        assert not runs.has_offer
        assert not runs.take_back()
        np.testing.assert_array_equal(vectors(second), engine.run([text(2)]))


@both
async def test_who_does_not_go_on_leaves_the_offer(kind: str, engine: NativeEngine) -> None:
    async with running(kind, engine) as (runs, heard):
        express, offered = runs.prepare([text(1)]), runs.prepare([text(2)])
        runs.offer(offered)
        runs.submit(express, goes_on=False)
        await until(lambda: heard.times > 0)
        await asyncio.sleep(0.02)
        assert (express.seconds > 0, runs.has_offer) == (True, True)
        assert runs.take_back()


@both
async def test_closing_waits_for_what_was_submitted(kind: str, engine: NativeEngine) -> None:
    heard = Heard()
    runs = made(kind, engine, 1, heard)
    submitted = [runs.prepare([text(n, 40)] * 20) for n in range(20)]
    for run in submitted:
        runs.submit(run, goes_on=True)
    await asyncio.to_thread(runs.close)
    assert all(run.seconds > 0 for run in submitted)
    runs.release()


@both
async def test_threads_that_wait_take_no_time(kind: str, engine: NativeEngine) -> None:
    async with running(kind, engine) as (runs, _):
        first = runs.prepare([text(1)])
        runs.submit(first, goes_on=True)
        await until(lambda: first.seconds > 0)
        before = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - before < 0.1


@both
async def test_a_closed_batcher_keeps_no_model(kind: str, kernel_mean: Artifact) -> None:
    """Without waiting for the collector: models are large."""
    engine = NativeEngine(kernel_mean.graph_for("int8"), dimensions=kernel_mean.spec.dimensions)
    batcher = MicroBatcher(
        engine.run, dimensions=64, workers=2, max_batch_tokens=64, max_queue_tokens=100,
        padded=False, queue=engine.queue if kind == "queue" else None,
    )  # fmt: skip
    await batcher.embed([text(1)])
    await batcher.close()
    gone = weakref.ref(engine)
    gc.disable()
    try:
        del engine, batcher
        assert gone() is None
    finally:
        gc.enable()


async def test_a_function_that_fails_is_an_outcome_and_the_offer_stays() -> None:
    def fails(_: object) -> Any:
        raise RuntimeError("poisoned")

    heard = Heard()
    runs = ThreadedRuns(fails, fails, ThreadPoolExecutor(1), heard)
    first, second = runs.prepare([text(1)]), runs.prepare([text(2)])
    runs.offer(second)
    runs.submit(first, goes_on=True)
    await until(lambda: heard.times > 0)
    assert isinstance(first.outcome, RuntimeError)
    assert runs.take_back()
    runs.close()


@both
@pytest.mark.parametrize("workers", [1, 3])
async def test_the_batcher_gives_every_waiter_its_own(
    kind: str, workers: int, engine: NativeEngine
) -> None:
    """Requests of all sizes come and go, some are cancelled, some are wrong."""
    draw = np.random.RandomState(workers)
    batcher = MicroBatcher(
        engine.run, dimensions=64, workers=workers, max_batch_tokens=64, max_queue_tokens=10**6,
        padded=False, queue=engine.queue if kind == "queue" else None,
    )  # fmt: skip
    requests = [
        [
            text(int(draw.randint(10**6)), int(draw.randint(1, 48)))
            for _ in range(draw.randint(1, 9))
        ]
        for _ in range(300)
    ]
    wrong = {int(n) for n in draw.randint(0, 300, 12)}
    for number in wrong:
        requests[number].append(np.array([10**6], dtype=np.int64))  # in no vocabulary
    leaving = {int(n) for n in draw.randint(0, 300, 40)} - wrong
    tasks = []
    for number, request in enumerate(requests):
        tasks.append(asyncio.create_task(batcher.embed(request)))
        if number % 7 == 0:
            await asyncio.sleep(0.001)
        if number in leaving:
            tasks[-1].cancel()
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
    await batcher.close()
    assert batcher.backlog() == (0, 0)
    for number, (request, found) in enumerate(zip(requests, done, strict=True)):
        if number in wrong:
            assert "Token ids" in str(found)
        elif number not in leaving or not isinstance(found, asyncio.CancelledError):
            assert not isinstance(found, BaseException), (number, found)
            np.testing.assert_array_equal(found.vectors, engine.run(request))
    assert any(isinstance(done[number], asyncio.CancelledError) for number in leaving)
