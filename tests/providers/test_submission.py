"""Texts that nobody waits for in a task: told once, of the vectors or of why there are none."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.domain import Pooled
from cortex_embed.errors import EngineError, NotReadyError
from cortex_embed.providers.submission import Submission
from tests.circles import circles
from tests.providers.batching import FakeEngine, batching, entered, text, until, vectors_of
from tests.providers.test_local import NATIVE, embed, loaded

if TYPE_CHECKING:
    from cortex_embed.models.store import Artifact

Told = list["Pooled | Exception"]


async def test_it_is_told_of_all_texts_at_once() -> None:
    told: Told = []
    texts = [text(number, 1 + number % 3) for number in range(7)]
    async with batching(FakeEngine(), budget=4, padded=False) as batcher:
        Submission(batcher, texts, 0.7, told.append)
        await until(lambda: bool(told))
        assert batcher.backlog() == (0, 0)
    (found,) = told
    assert isinstance(found, Pooled)
    np.testing.assert_array_equal(found.vectors, vectors_of(texts))
    assert found.lengths == tuple(map(len, texts))
    assert found.tokens == sum(found.lengths)
    assert found.timings.tokenize == pytest.approx(0.1)
    assert found.timings.engine > 0


@pytest.mark.parametrize("way", ["told", "failed", "left"])
async def test_it_does_not_wait_for_the_collector_of_circles(way: str) -> None:
    engine, told = FakeEngine(), Told()
    engine.poison = {13}
    async with batching(engine) as batcher:
        await batcher.embed([text(1)])
        with circles() as found:
            submission = Submission(batcher, [text(13 if way == "failed" else 1)], 0.0, told.append)
            if way == "left":
                submission.cancel()
            else:
                await until(lambda: bool(told))
            del submission
    assert not found & {"Submission", "Job", "ndarray"}


async def test_it_is_told_why_there_is_nothing() -> None:
    engine, told = FakeEngine(), Told()
    engine.poison = {13}
    async with batching(engine) as batcher:
        Submission(batcher, [text(1), text(13)], 0.0, told.append)
        await until(lambda: bool(told))
        other = await batcher.embed([text(1)])
    np.testing.assert_array_equal(other.vectors, vectors_of([text(1)]))
    (why,) = told
    assert isinstance(why, EngineError)
    assert "poisoned" in why.message


@pytest.mark.parametrize("is_running", [True, False])
async def test_who_has_left_is_not_told(*, is_running: bool) -> None:
    engine, told = FakeEngine(), Told()
    engine.gate.clear()
    async with batching(engine) as batcher:
        first = Submission(batcher, [text(0)], 0.0, told.append)
        await entered(engine)
        second = Submission(batcher, [text(1)], 0.0, told.append)
        assert batcher.queued_tokens == 1
        (first if is_running else second).cancel()
        assert batcher.queued_tokens == (1 if is_running else 0)
        engine.gate.set()
        await until(lambda: bool(told))
        await asyncio.sleep(0.05)
    assert len(told) == 1
    assert [int(batch[0][0]) for batch in engine.batches] == ([0, 1] if is_running else [0])


async def test_the_end_waits_for_it() -> None:
    engine, told = FakeEngine(), Told()
    engine.gate.clear()
    async with batching(engine) as batcher:
        Submission(batcher, [text(0)], 0.0, told.append)
        await entered(engine)
        closing = asyncio.ensure_future(batcher.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        with pytest.raises(NotReadyError):
            Submission(batcher, [text(1)], 0.0, told.append)
        engine.gate.set()
        await closing
    assert len(told) == 1


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("fixture", ["kernel_mean", "minilm_artifact"])
async def test_its_vectors_are_those_of_a_task(
    fixture: str, precision: str, request: pytest.FixtureRequest
) -> None:
    """To the last bit: the same kernels, alone, together, and asked for by either way."""
    artifact: Artifact = request.getfixturevalue(fixture)
    texts = ("Hello, world!", "  padded ", "Grüße aus Köln", "a" * 20, "x", "[SEP] is a marker")
    async with loaded(artifact, precision=precision, engine=NATIVE) as provider:
        told: Told = []
        submitted = provider.submit(texts, input_type=None, truncate="end", told=told.append)
        assert submitted is not None
        await until(lambda: bool(told))
        (found,) = told
        assert isinstance(found, Pooled)
        for at, one in enumerate(texts):
            alone = await embed(provider, one)
            np.testing.assert_array_equal(found.vectors[at : at + 1], alone.vectors)
            assert found.lengths[at] == alone.tokens


@pytest.mark.parametrize(
    "one", ["a " * 400, "   ", "word " * 125, "é " * 290], ids=["chars", "blank", "long", "tokens"]
)
async def test_it_leaves_to_others_what_there_is_more_to_say_of(
    tiny_mean: Artifact, one: str
) -> None:
    async with loaded(tiny_mean) as provider:
        for texts in ((one,), ("a", one)):
            assert provider.submit(texts, input_type=None, truncate="end", told=print) is None
        assert (await embed(provider, "a")).tokens == 3


async def test_nothing_is_submitted_before_there_is_a_model(tiny_mean: Artifact) -> None:
    async with loaded(tiny_mean) as provider:
        pass
    assert provider.submit(("a",), input_type=None, truncate="end", told=print) is None
