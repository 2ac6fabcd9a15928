"""The batcher's promises, against a fake engine whose every step the test controls."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_embed.errors import EngineError, NotReadyError, OverloadedError
from cortex_embed.metrics import Histogram, Metrics
from cortex_embed.providers.batcher import MicroBatcher
from tests.providers.batching import (
    DIMENSIONS,
    FakeEngine,
    batching,
    entered,
    text,
    until,
    vectors_of,
)


async def test_vectors_come_back_in_the_order_of_the_texts() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        texts = [text(i, 1 + (i * 7) % 40) for i in range(50)]
        result = await batcher.embed(texts)
    np.testing.assert_array_equal(result.vectors, vectors_of(texts))


@settings(deadline=None, max_examples=40)
@given(
    requests=st.lists(
        st.lists(st.integers(1, 80), min_size=1, max_size=20), min_size=1, max_size=8
    ),
    budget=st.integers(16, 200),
    workers=st.integers(1, 3),
    padded=st.booleans(),
)
async def test_budget_order_and_completeness(
    requests: list[list[int]], budget: int, workers: int, *, padded: bool
) -> None:
    engine = FakeEngine()
    sent = [[text(100 * r + i, n) for i, n in enumerate(q)] for r, q in enumerate(requests)]
    async with batching(engine, workers=workers, budget=budget, padded=padded) as batcher:
        results = await asyncio.gather(*(batcher.embed(texts) for texts in sent))
        assert batcher.queued_tokens == 0
    for texts, result in zip(sent, results, strict=True):
        np.testing.assert_array_equal(result.vectors, vectors_of(texts))
    for batch in engine.batches:
        lengths = [len(ids) for ids in batch]
        size = max(lengths) * len(lengths) if padded else sum(lengths)
        assert size <= budget or len(batch) == 1
    assert sum(len(b) for b in engine.batches) == sum(len(q) for q in requests)


async def test_requests_that_wait_together_share_a_micro_batch() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0)]))
        await entered(engine)
        others = [asyncio.ensure_future(batcher.embed([text(i)])) for i in range(1, 9)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *others)
    assert [len(b) for b in engine.batches] == [1, 8]


@pytest.mark.parametrize("padded", [True, False])
async def test_only_what_is_padded_is_sorted_by_length(padded: bool) -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine, padded=padded) as batcher:
        requests = [asyncio.ensure_future(batcher.embed([text(0)]))]
        await entered(engine)
        requests += [asyncio.ensure_future(batcher.embed([text(1, n)])) for n in (5, 40, 6, 5)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(*requests)
    lengths = [[len(ids) for ids in batch] for batch in engine.batches[1:]]
    assert lengths == ([[5, 5], [40], [6]] if padded else [[5, 40, 6, 5]])


async def test_a_free_thread_takes_all_questions_if_the_others_are_busy() -> None:
    """Half of them each would be two short runs, where one long one costs less."""
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine, workers=2, budget=512, padded=False) as batcher:
        busy = [asyncio.ensure_future(batcher.embed([text(i, 100)])) for i in range(2)]
        await entered(engine)
        await entered(engine)
        questions = [asyncio.ensure_future(batcher.embed([text(i, 20)])) for i in range(6)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(*busy, *questions)
    assert [len(batch) for batch in engine.batches] == [1, 1, 6]


async def test_a_run_of_questions_is_no_longer_than_it_must_be() -> None:
    """Bulk's are as long as they may be."""
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine, budget=512, padded=False, enough=60) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0, 100)]))
        await entered(engine)
        questions = [asyncio.ensure_future(batcher.embed([text(1, 20)])) for _ in range(7)]
        bulk = asyncio.ensure_future(batcher.embed([text(2, 20)] * 12))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *questions, bulk)
    assert [len(b) for b in engine.batches if b[0][0] == 1] == [3, 3, 1]
    assert [len(b) for b in engine.batches if b[0][0] == 2] == [12]


async def test_a_failed_run_fails_only_the_request_concerned() -> None:
    engine = FakeEngine()
    engine.poison = {13}
    engine.gate.clear()
    async with batching(engine) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0)]))
        await entered(engine)
        good = [asyncio.ensure_future(batcher.embed([text(i)])) for i in (1, 2)]
        bad = asyncio.ensure_future(batcher.embed([text(13), text(14)]))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, *good)
        with pytest.raises(EngineError, match="poisoned"):
            await bad
        again = await batcher.embed([text(5)])
        assert batcher.queued_tokens == 0
    np.testing.assert_array_equal(again.vectors, vectors_of([text(5)]))


async def test_bulks_next_micro_batch_lies_ready_for_the_first_thread() -> None:
    """The thread goes on without a word of the event loop, which stands still meanwhile."""
    engine = FakeEngine()
    async with batching(engine) as batcher:
        engine.gate.clear()
        job = asyncio.create_task(batcher.embed([text(i, 64) for i in range(4)], priority="bulk"))
        await until(lambda: len(engine.batches) == 1)
        engine.gate.set()
        for _ in range(2):
            assert engine.entered.acquire(timeout=10)
        assert len(engine.batches) >= 2
        assert (await job).vectors[:, 0].tolist() == [0, 1, 2, 3]


async def test_of_many_questions_the_next_lie_ready_as_well() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        engine.gate.clear()
        jobs = [asyncio.create_task(batcher.embed([text(i, 64)])) for i in range(6)]
        await until(lambda: len(engine.batches) == 1)
        engine.gate.set()
        for _ in range(2):
            assert engine.entered.acquire(timeout=10)
        assert len(engine.batches) >= 2
        found = await asyncio.gather(*jobs)
    assert [int(one.vectors[0, 0]) for one in found] == list(range(6))


async def test_few_questions_wait_for_others_to_join_them() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        engine.gate.clear()
        first = asyncio.create_task(batcher.embed([text(0)]))
        await entered(engine)
        second = asyncio.create_task(batcher.embed([text(1)]))
        await asyncio.sleep(0)
        third = asyncio.create_task(batcher.embed([text(2)]))
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, second, third)
    assert [len(batch) for batch in engine.batches] == [1, 2]


async def test_who_is_tried_again_does_not_wait_for_all_that_lies_ready() -> None:
    engine = FakeEngine()
    engine.poison = {13}
    async with batching(engine, budget=128) as batcher:
        engine.gate.clear()
        first = asyncio.create_task(batcher.embed([text(0, 64)]))
        await entered(engine)
        pair = [asyncio.create_task(batcher.embed([text(i, 64)])) for i in (13, 1)]
        later = [asyncio.create_task(batcher.embed([text(i, 64)])) for i in range(20, 40)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, pair[1], *later)
        with pytest.raises(EngineError, match="poisoned"):
            await pair[0]
    alone = [n for n, batch in enumerate(engine.batches) if [int(i[0]) for i in batch] == [1]]
    assert alone
    assert alone[0] < 6, "of some thirteen"


async def test_a_question_overtakes_what_lies_ready() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        engine.gate.clear()
        bulk = asyncio.create_task(batcher.embed([text(i, 64) for i in range(3)], priority="bulk"))
        await until(lambda: len(engine.batches) == 1)
        question = asyncio.create_task(batcher.embed([text(9)]))
        await until(lambda: len(engine.batches) == 2)
        assert engine.batches[1][0][0] == 9
        engine.gate.set()
        await asyncio.gather(bulk, question)


async def test_what_lies_ready_for_nobody_is_not_run() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        engine.gate.clear()
        jobs = [
            asyncio.create_task(batcher.embed([text(i, 64)] * 3, priority="bulk")) for i in (1, 2)
        ]
        await until(lambda: len(engine.batches) == 1)
        jobs[0].cancel()
        await until(jobs[0].done)
        engine.gate.set()
        await jobs[1]
    assert [int(batch[0][0]) for batch in engine.batches] == [1, 2, 2, 2]


async def test_a_failed_request_leaves_the_queue_at_once() -> None:
    engine = FakeEngine()
    engine.poison = {13}
    async with batching(engine, budget=16) as batcher:
        with pytest.raises(EngineError):
            await batcher.embed([text(13, 16)] * 20)
        assert batcher.queued_tokens == 0
    assert len(engine.batches) == 1


async def test_an_engine_that_returns_too_little_is_an_error_not_a_hang() -> None:
    async with batching(lambda batch: vectors_of(batch)[:-1]) as batcher:
        with pytest.raises(EngineError, match="shape"):
            await asyncio.wait_for(batcher.embed([text(1), text(2)]), 10)


async def test_a_cancelled_request_leaves_the_queue() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0)]))
        await entered(engine)
        waiting = asyncio.ensure_future(batcher.embed([text(1), text(2)]))
        await asyncio.sleep(0)
        assert batcher.queued_tokens == 2
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert batcher.queued_tokens == 0
        engine.gate.set()
        await first
    assert len(engine.batches) == 1


async def test_a_request_cancelled_inside_the_engine_harms_nobody() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0)]))
        await entered(engine)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        engine.gate.set()
        assert (await batcher.embed([text(7)])).vectors[0, 0] == 7


async def test_a_full_queue_refuses_before_it_works() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine, queue=10) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0)]))
        await entered(engine)
        huge = asyncio.ensure_future(batcher.embed([text(1, 50)]))  # an empty queue takes any
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError, match=r"50 tokens are waiting.*limit is 10") as caught:
            await batcher.embed([text(2)])
        assert caught.value.retry_after >= 1
        engine.gate.set()
        await asyncio.gather(first, huge)


async def test_close_finishes_what_is_queued_and_refuses_the_rest() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0)]))
        await entered(engine)
        queued = asyncio.ensure_future(batcher.embed([text(1)]))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0)
        with pytest.raises(NotReadyError):
            await batcher.embed([text(2)])
        engine.gate.set()
        await closing
        assert (await first).vectors[0, 0] == 0
        assert (await queued).vectors[0, 0] == 1


async def test_seconds_are_told_apart() -> None:
    engine = FakeEngine()
    async with batching(engine) as batcher:
        result = await batcher.embed([text(1)])
    assert result.queue_seconds >= 0
    assert result.engine_seconds > 0


async def test_short_requests_overtake_bulk_by_a_thread_of_their_own() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine, budget=200) as batcher:
        bulk = asyncio.ensure_future(batcher.embed([text(1, 200)] * 3))
        await entered(engine)
        short = asyncio.ensure_future(batcher.embed([text(2)]))
        await entered(engine)  # while bulk still holds the only worker
        assert [b[0][0] for b in engine.batches] == [1, 2]
        engine.gate.set()
        assert (await short).vectors[0, 0] == 2
        await bulk


async def test_bulk_never_starves() -> None:
    engine = FakeEngine()
    engine.gate.clear()
    async with batching(engine, budget=16) as batcher:
        first = asyncio.ensure_future(batcher.embed([text(0)]))
        await entered(engine)
        bulk = asyncio.ensure_future(batcher.embed([text(1, 16)] * 3, priority="bulk"))
        short = [asyncio.ensure_future(batcher.embed([text(2, 16)])) for _ in range(30)]
        await asyncio.sleep(0)
        engine.gate.set()
        await asyncio.gather(first, bulk, *short)
    order = [int(batch[0][0]) for batch in engine.batches[1:]]
    third = [place for place, value in enumerate(order) if value == 1][2]
    assert third <= 3 * 5  # every fourth turn of the worker; the extra thread adds its own


async def test_a_text_alone_gets_every_thread_and_only_then() -> None:
    engine, alone = FakeEngine(), FakeEngine()
    async with batching(engine, workers=2, alone=alone) as batcher:
        await batcher.embed([text(1)])
        assert (len(engine.batches), len(alone.batches)) == (0, 1)
        await batcher.embed([text(1)] * 100)
        assert len(alone.batches) == 1
        alone.gate.clear()
        first = asyncio.ensure_future(batcher.embed([text(2)]))
        await entered(alone)
        await batcher.embed([text(3)])  # not alone: the first is under way
        assert len(alone.batches) == 2
        alone.gate.set()
        await first


async def test_memory_is_let_go_after_much_work_and_not_after_little() -> None:
    engine = FakeEngine()
    calls: list[int] = []
    batcher = MicroBatcher(
        engine,
        dimensions=DIMENSIONS,
        workers=2,
        max_batch_tokens=512,
        max_queue_tokens=10**6,
        when_idle=lambda: calls.append(1),
    )
    await batcher.embed([text(1, 100)])
    assert calls == []
    await batcher.embed([text(1, 100)] * 300)
    await batcher.close()
    assert calls == [1]


async def test_threads_share_what_waits_and_finish_together() -> None:
    engine = FakeEngine()
    async with batching(engine, workers=2, budget=1000) as batcher:
        await batcher.embed([text(i, 16) for i in range(16)])
    assert [len(b) for b in engine.batches] == [8, 4, 4]


async def test_what_waits_and_what_ran_is_told() -> None:
    engine, metrics = FakeEngine(), Metrics()
    engine.gate.clear()
    async with batching(engine, budget=8, metrics=metrics) as batcher:
        loop = asyncio.get_running_loop()
        first = loop.create_task(batcher.embed([text(1, 4)]))
        await entered(engine)
        second = loop.create_task(batcher.embed([text(2, 3), text(3, 3), text(4, 8)]))
        await asyncio.sleep(0)
        assert metrics.waiting() == batcher.backlog() == (3, 14)
        engine.gate.set()
        await asyncio.gather(first, second)
        assert metrics.waiting() == (0, 0)
    told = {family.tei or family.name: family.samples.get(()) for family in metrics.families()}
    texts, tokens = told["te_batch_next_size"], told["te_batch_next_tokens"]
    lengths, seconds = told["te_request_input_length"], told["cortex_embed_engine_run_seconds"]
    for histogram, count, total in [(texts, 3, 4), (tokens, 3, 18), (lengths, 4, 18)]:
        assert isinstance(histogram, Histogram)
        assert (sum(histogram.counts), histogram.sum) == (count, total)
    assert isinstance(seconds, Histogram)
    assert sum(seconds.counts) == 3
