"""Large requests, which are tokenized, computed and answered in parts that nobody sees."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cortex_embed.errors import OverloadedError
from cortex_embed.providers import parts
from cortex_embed.providers.runs import ThreadedRuns
from tests.providers.test_local import embed, loaded

if TYPE_CHECKING:
    from cortex_embed.domain import Text
    from cortex_embed.models.artifact import Artifact


def test_slices_are_all_the_texts_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "SLICE_CHARS", 10)
    texts: list[Text] = ["abc", "defg", "hij", "k" * 30, "l", (1, 2), "m"]
    found = parts.slices(texts)
    assert found == [["abc", "defg", "hij"], ["k" * 30], ["l", (1, 2), "m"]]
    assert [parts.size(one) for one in found] == [10, 30, 10]
    assert parts.slices(["alone"]) == [["alone"]]


async def test_a_large_request_is_computed_while_it_is_tokenized(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its parts are not to be seen: vectors, counts and cuts are those of single requests."""
    texts = [f"word {i} " * (1 + i % 40) for i in range(60)]
    async with loaded(tiny_mean) as provider:
        alone = [await embed(provider, text) for text in texts]
        assert provider._tokenizer is not None
        monkeypatch.setattr(parts, "SLICE_CHARS", sum(map(len, texts)) // 6)
        assert provider._batcher is not None
        runs = provider._batcher._runs
        assert isinstance(runs, ThreadedRuns)
        encode, run = provider._tokenizer.encode, runs._call
        computed, ran = [0], list[int]()

        def counted(ids: list[Any]) -> Any:
            computed[0] += len(ids)
            return run(ids)

        def noted(*args: Any, **options: Any) -> Any:
            ran.append(computed[0])
            time.sleep(0.05)  # the tiny model needs less for all it has
            return encode(*args, **options)

        monkeypatch.setattr(runs, "_call", counted)
        monkeypatch.setattr(provider._tokenizer, "encode", noted)
        together = await embed(provider, *texts)
    assert len(ran) >= 6
    assert ran[0] == 0 < ran[1] < ran[-1]
    np.testing.assert_allclose(
        together.vectors, np.concatenate([one.vectors for one in alone]), rtol=0, atol=1e-6
    )
    assert together.tokens == sum(one.tokens for one in alone)
    assert [(t.index, t.tokens) for t in together.truncations] == [
        (i, t.tokens) for i, one in enumerate(alone) for t in one.truncations
    ]
    assert together.truncations
    assert together.timings.tokenize > 0.3
    assert together.timings.engine > 0


async def test_a_large_request_is_refused_or_left_as_a_whole(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["many words " * 5] * 40
    async with loaded(tiny_mean) as provider:
        batcher = provider._batcher
        assert batcher is not None
        monkeypatch.setattr(parts, "SLICE_CHARS", 200)
        gate = threading.Event()
        runs = batcher._runs
        assert isinstance(runs, ThreadedRuns)
        run = runs._call
        monkeypatch.setattr(runs, "_call", lambda ids: gate.wait(10) and run(ids))
        monkeypatch.setattr(batcher, "_max_queue_tokens", 300)
        # Larger than the bound, which an empty queue must take.
        first = asyncio.create_task(embed(provider, *texts))
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if batcher.queued_tokens >= 300:
                break
        with pytest.raises(
            OverloadedError, match=r"this request has about 4\d\d; the limit is 300"
        ):
            await embed(provider, *texts)
        monkeypatch.setattr(batcher, "_max_queue_tokens", 1_000_000)
        waiting = batcher.queued_tokens
        gone = asyncio.create_task(embed(provider, *["word"] * 60))
        for _ in range(1000):
            await asyncio.sleep(0.01)
            if batcher.queued_tokens > waiting:
                break
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert batcher.queued_tokens == waiting
        gate.set()
        assert len((await first).vectors) == 40
        assert batcher.queued_tokens == 0
