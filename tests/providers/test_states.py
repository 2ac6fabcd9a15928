"""Token states: one thread, one session, one request at a time, and a bounded queue."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.errors import EngineError, OverloadedError
from cortex_embed.providers import engine
from cortex_embed.providers.states import MAX_TOKENS, TokenStateRunner, batches

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact


class FakeEngine:
    """A state is its token's id, twice. Waits at `gate`."""

    made = 0
    threads: set[str]
    gate: threading.Event
    runs: list[int]

    def __init__(self, _graph: Path, *, dimensions: int, prepack: bool) -> None:
        assert (dimensions, prepack) == (2, False)
        FakeEngine.made += 1

    def run(self, batch: list[Any]) -> Any:
        assert FakeEngine.gate.wait(10)
        FakeEngine.threads.add(threading.current_thread().name)
        FakeEngine.runs.append(len(batch))
        rows = engine.padded(batch)["input_ids"].astype(np.float32)
        return np.stack([rows, rows], axis=2)


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TokenStateRunner:
    FakeEngine.made, FakeEngine.threads, FakeEngine.runs = 0, set(), []
    FakeEngine.gate = threading.Event()
    FakeEngine.gate.set()
    monkeypatch.setattr(engine, "Engine", FakeEngine)
    return TokenStateRunner(lambda: tmp_path / "x.onnx", dimensions=2, max_batch_tokens=8)


def text(*ids: int) -> Any:
    return np.array(ids, dtype=np.int64)


async def test_each_text_gets_its_own_states_in_order(runner: TokenStateRunner) -> None:
    texts = [text(1), text(2, 3, 4), text(5, 6), text(*range(20))]
    states = await runner.run(texts)
    for ids, rows in zip(texts, states, strict=True):
        np.testing.assert_array_equal(rows, np.stack([ids, ids], axis=1))
        assert rows.flags.c_contiguous
    assert FakeEngine.runs == [1, 2, 1]
    await runner.close()


async def test_one_session_on_one_thread_however_many_ask(runner: TokenStateRunner) -> None:
    assert FakeEngine.made == 0
    await asyncio.gather(*(runner.run([text(n, n), text(n)]) for n in range(1, 20)))
    assert FakeEngine.made == 1
    assert len(FakeEngine.threads) == 1
    await runner.close()


async def test_more_than_may_wait_is_refused_and_the_rest_is_served(
    runner: TokenStateRunner,
) -> None:
    FakeEngine.gate.clear()
    full = [np.ones(MAX_TOKENS, dtype=np.int64)]
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(runner.run(full)) for _ in range(4)]
    await asyncio.sleep(0.01)
    with pytest.raises(OverloadedError, match=r"65536 tokens wait .* the limit is 65536"):
        await runner.run([text(1)])
    FakeEngine.gate.set()
    assert len(await asyncio.gather(*waiting)) == 4
    assert len(await runner.run([text(1)])) == 1
    await runner.close()


async def test_a_cancelled_request_leaves_its_place_to_the_next(runner: TokenStateRunner) -> None:
    FakeEngine.gate.clear()
    loop = asyncio.get_running_loop()
    given_up, next_one = (loop.create_task(runner.run([text(n)])) for n in (1, 2))
    await asyncio.sleep(0.01)
    given_up.cancel()
    FakeEngine.gate.set()
    (rows,) = await next_one
    assert rows[0, 0] == 2
    await runner.close()


async def test_closing_waits_for_those_who_wait(runner: TokenStateRunner) -> None:
    FakeEngine.gate.clear()
    loop = asyncio.get_running_loop()
    waiting = [loop.create_task(runner.run([text(1)])) for _ in range(3)]
    await asyncio.sleep(0.01)
    closing = loop.create_task(runner.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    FakeEngine.gate.set()
    await closing
    assert all(len(states) == 1 for states in await asyncio.gather(*waiting))


async def test_a_graph_that_cannot_be_loaded_is_an_engine_error(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    runner = TokenStateRunner(lambda: tmp_path / "x.onnx", dimensions=2, max_batch_tokens=8)
    for _ in range(2):
        with pytest.raises(EngineError, match="failed to compute") as caught:
            await runner.run([text(1)])
        assert str(tmp_path) not in caught.value.message
    await runner.close()


async def test_a_graph_that_pools_is_no_graph_of_states(tiny_mean: Artifact) -> None:
    graph = tiny_mean.graph_for("fp32", 20)
    runner = TokenStateRunner(lambda: graph, dimensions=32, max_batch_tokens=8)
    with pytest.raises(EngineError, match=r"shape \(1, 32\) came for \(1, 3, 32\)"):
        await runner.run([text(2, 90, 3)])
    await runner.close()


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 400))
def test_batches_hold_every_text_once_within_the_budget(lengths: list[int], budget: int) -> None:
    made = batches(lengths, budget)
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        assert len(batch) == 1 or max(lengths[i] for i in batch) * len(batch) <= budget
