"""The pool around providers that compute nothing: who is loaded, when, how often, and who goes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cortex_embed.domain import Pooled
from cortex_embed.errors import ModelFileError, ModelLoadError, NotReadyError
from cortex_embed.providers import pool as pool_module
from cortex_embed.providers.pool import Candidate, ModelPool
from tests.server.conftest import SPEC, FakeProvider

if TYPE_CHECKING:
    from cortex_embed.domain import Provider

LIMIT = 10.0
UNIT = 2**30
"""Far more than what this process's real memory does meanwhile."""


class Model:
    """A candidate that counts. `memory` is its size in units; all providers wait at one gate."""

    def __init__(self, name: str, memory: int = 1) -> None:
        self.spec = replace(SPEC, id=name, aliases=(), repo=name)
        self.memory = memory * UNIT
        self.made: list[FakeProvider] = []
        self.open = asyncio.Event()
        self.open.set()
        self.failure: Exception | None = None

    def make(self) -> Provider:
        one = FakeProvider(self.spec)
        one.load_gate = self.open
        one.load_failure = self.failure
        self.made.append(one)
        return one

    @property
    def candidate(self) -> Candidate:
        return Candidate(self.spec.id, self.make, self.memory, self.memory)

    @property
    def in_memory(self) -> int:
        return sum(not one.closed for one in self.made)


async def opened(*models: Model, max_memory: int = 0, idle: float = 0.0) -> ModelPool:
    pool = ModelPool([m.candidate for m in models], max_memory=max_memory * UNIT, idle=idle)
    await pool.load()
    return pool


async def embed(pool: ModelPool, name: str) -> Pooled:
    """As a handler does: wait for the model, then use it."""
    await pool.prepare(name, LIMIT)
    with pool.use(name) as provider:
        assert provider.spec.id == name
        return await provider.embed(["x"], input_type=None, truncate="end", priority="interactive")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():  # noqa: ASYNC110 - a condition of the code under test
            await asyncio.sleep(0.001)


async def test_only_the_default_model_is_loaded_at_the_start() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    assert (len(a.made), len(b.made)) == (1, 0)
    assert (pool.is_loaded("a"), pool.is_loaded("b")) == (True, False)
    assert await pool.close()
    assert (a.in_memory, pool.is_loaded("a")) == (0, False)


async def test_begin_makes_the_provider_that_load_waits_for() -> None:
    a = Model("a")
    pool = ModelPool([a.candidate])
    pool.begin()
    await pool.load()
    assert len(a.made) == 1


async def test_a_hundred_first_requests_are_one_load() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    b.open.clear()
    asking = [asyncio.create_task(embed(pool, "b")) for _ in range(100)]
    await until(lambda: bool(b.made))
    b.open.set()
    answers = await asyncio.gather(*asking)
    assert len(answers) == 100
    assert len(b.made) == 1


async def test_who_does_not_wait_is_told_to_come_back_and_finds_it_loaded() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    await pool.prepare("b", 0)
    with pytest.raises(NotReadyError, match="b is loading") as why, pool.use("b"):
        pytest.fail("it is not loaded")
    assert (why.value.phase, why.value.retry_after) == ("loading", 1)
    await until(lambda: pool.is_loaded("b"))
    await embed(pool, "b")
    assert len(b.made) == 1


async def test_waiting_has_an_end_and_the_load_goes_on() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    b.open.clear()
    began = asyncio.get_running_loop().time()
    await pool.prepare("b", 0.05)
    assert 0.04 < asyncio.get_running_loop().time() - began < 5
    with pytest.raises(NotReadyError), pool.use("b"):
        pass
    b.open.set()
    await until(lambda: pool.is_loaded("b"))
    assert len(b.made) == 1


async def test_a_waiter_who_leaves_takes_no_load_along() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    b.open.clear()
    leaving, staying = (asyncio.create_task(embed(pool, "b")) for _ in range(2))
    await until(lambda: bool(b.made))
    leaving.cancel()
    await asyncio.wait({leaving})
    assert leaving.cancelled()
    b.open.set()
    assert (await staying).vectors.shape == (1, 8)
    assert len(b.made) == 1


async def test_a_failed_load_is_told_to_all_who_wait_and_tried_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    b.failure = ModelFileError("/secret/model.onnx is damaged.")
    told = await asyncio.gather(*(embed(pool, "b") for _ in range(3)), return_exceptions=True)
    assert all(isinstance(one, ModelLoadError) for one in told)
    assert "secret" not in str(told[0])  # paths are for the log
    assert "/secret/model.onnx is damaged." in caplog.text
    assert (len(b.made), b.in_memory) == (1, 0)
    await embed(pool, "a")  # it harms no other
    b.failure = None
    await embed(pool, "b")
    assert len(b.made) == 2


async def test_a_failure_that_nobody_waited_for_is_told_to_the_next_and_tried_again() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    b.failure = OSError("disk")
    with pytest.raises(NotReadyError), pool.use("b"):
        pass
    await until(lambda: b.made != [] and b.in_memory == 0)
    b.failure = None
    with pytest.raises(ModelLoadError, match="could not be loaded"), pool.use("b"):
        pass
    await embed(pool, "b")
    assert len(b.made) == 2


async def test_a_default_model_that_cannot_be_loaded_says_why_itself() -> None:
    a = Model("a")
    a.failure = ModelFileError("damaged")
    pool = ModelPool([a.candidate])
    with pytest.raises(ModelFileError, match="damaged"):
        await pool.load()
    assert await pool.close()
    assert a.in_memory == 0


async def test_the_least_recently_used_goes_first_the_default_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    a, b, c = (Model(name, memory=4) for name in "abc")
    pool = await opened(a, b, c, max_memory=8)
    for name in "aba":
        await embed(pool, name)
    caplog.set_level(logging.INFO)
    await embed(pool, "c")
    assert [pool.is_loaded(name) for name in "abc"] == [True, False, True]
    assert "Unloading b: c needs its memory." in caplog.text
    await embed(pool, "b")
    assert [pool.is_loaded(name) for name in "abc"] == [False, True, True]
    await embed(pool, "a")
    assert len(a.made) == 2


async def test_a_model_at_work_is_never_unloaded_but_takes_no_more_while_one_waits() -> None:
    a, b = (Model(name, memory=4) for name in "ab")
    pool = await opened(a, b, max_memory=4)
    with pool.use("a") as provider:
        waiting = asyncio.create_task(embed(pool, "b"))
        await until(lambda: not pool.is_loaded("a"))
        later = asyncio.create_task(embed(pool, "a"))  # or b would wait for ever
        await asyncio.sleep(0.05)
        assert not a.made[0].closed
        assert b.made == []
        await provider.embed(["x"], input_type=None, truncate="end", priority="bulk")
    await waiting
    await later
    assert (len(a.made), len(b.made)) == (2, 1)


async def test_a_model_just_loaded_waits_for_who_asked_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pool_module, "_KEPT", 0.3)
    a, b = (Model(name, memory=4) for name in "ab")
    pool = await opened(a, b, max_memory=4)
    await embed(pool, "a")
    await pool.prepare("b", 0)  # told to come back
    await until(lambda: pool.is_loaded("b"))
    other = asyncio.create_task(embed(pool, "a"))
    await asyncio.sleep(0.1)
    await embed(pool, "b")  # is back
    await other
    assert len(b.made) == 1
    await pool.prepare("b", LIMIT)  # and who does not come back is not waited for for ever
    async with asyncio.timeout(LIMIT):
        await embed(pool, "a")
    assert len(b.made) == 2


async def test_unused_models_go_after_a_while_but_not_the_default() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b, idle=0.1)
    await embed(pool, "b")
    with pool.use("b"):
        await asyncio.sleep(0.3)
        assert pool.is_loaded("b")
    assert pool.is_loaded("b")
    await until(lambda: b.in_memory == 0)
    assert pool.is_loaded("a")
    await until(lambda: not pool.is_loaded("b"))
    await embed(pool, "b")
    assert len(b.made) == 2


async def test_a_stop_during_a_load_waits_for_nobody() -> None:
    a, b = Model("a"), Model("b")
    pool = await opened(a, b)
    b.open.clear()
    waiting = asyncio.create_task(embed(pool, "b"))
    await until(lambda: bool(b.made))
    pool.drain()
    with pytest.raises(NotReadyError, match="stopping") as why:
        await waiting
    assert why.value.phase == "draining"
    async with asyncio.timeout(LIMIT):
        assert not await pool.close()  # threads may still be at it
    assert a.in_memory == 0
    with pytest.raises(NotReadyError, match="stopping"):
        await pool.prepare("b", LIMIT)


async def test_a_stop_while_one_waits_for_room() -> None:
    a, b = (Model(name, memory=4) for name in "ab")
    pool = await opened(a, b, max_memory=4)
    with pool.use("a"):
        waiting = asyncio.create_task(embed(pool, "b"))
        await until(lambda: not pool.is_loaded("a"))
        pool.drain()
        with pytest.raises(NotReadyError, match="stopping"):
            await waiting
    await pool.close()
    assert (a.in_memory, b.made) == (0, [])


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=4),
    bound=st.integers(5, 12),
    asks=st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=25),
)
def test_whatever_is_asked_the_bound_holds_and_the_answer_is_the_models(
    sizes: list[int], bound: int, asks: list[tuple[int, bool]]
) -> None:
    async def scenario() -> None:
        models = [Model(str(at), size) for at, size in enumerate(sizes)]
        highest = 0

        class Watched(Model):
            def make(self) -> Provider:
                nonlocal highest
                made = super().make()
                highest = max(highest, sum(m.memory * m.in_memory for m in models))
                return made

        for model in models:
            model.__class__ = Watched
        pool = await opened(*models, max_memory=bound)
        running: list[asyncio.Task[Pooled]] = []
        for which, alone in asks:
            name = models[which % len(models)].spec.id
            running.append(asyncio.create_task(embed(pool, name)))
            if alone:
                await asyncio.gather(*running)
        async with asyncio.timeout(LIMIT):
            answers = await asyncio.gather(*running)
        assert all(np.isfinite(one.vectors).all() for one in answers)
        assert highest <= bound * UNIT
        assert await pool.close()
        assert all(model.in_memory == 0 for model in models)

    asyncio.run(scenario())
