from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cortex_embed.errors import (
    TOO_LONG,
    InvalidRequestError,
    NotReadyError,
    TextError,
    TokensError,
    UnsupportedError,
)
from cortex_embed.metrics import Histogram, Metrics
from cortex_embed.providers import memory
from cortex_embed.providers.engines import ONNX_RUNTIME, EngineChoice
from cortex_embed.providers.local import LocalProvider
from cortex_embed.providers.states import MAX_TOKENS
from cortex_embed.vectors import l2_normalize

if TYPE_CHECKING:
    from cortex_embed.domain import Pooled, Text, TokenStates, Truncate
    from cortex_embed.metrics import Family
    from cortex_embed.models.store import Artifact


PRECISIONS = ["fp32", "int8"]
NATIVE = EngineChoice("native")


@asynccontextmanager
async def loaded(
    artifact: Artifact,
    threads: int = 2,
    precision: str = "fp32",
    engine: EngineChoice = ONNX_RUNTIME,
) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider(
        artifact,
        threads=threads,
        max_batch_tokens=256,
        max_queue_tokens=1_000_000,
        precision=precision,
        engine=engine,
    )
    await provider.load()
    try:
        yield provider
    finally:
        await provider.close()


async def embed(provider: LocalProvider, *texts: Text, truncate: str = "end") -> Pooled:
    return await provider.embed(
        texts,
        input_type=None,
        truncate=truncate,  # type: ignore[arg-type]
        priority="bulk",
    )


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=30))
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("fixture", ["tiny_cls", "tiny_mean"])
async def test_a_vector_does_not_depend_on_its_neighbours(
    fixture: str, precision: str, request: pytest.FixtureRequest, texts: list[str]
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    async with loaded(artifact, precision=precision) as provider:
        together = (await embed(provider, *texts)).vectors
        alone = np.concatenate([(await embed(provider, text)).vectors for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)


async def test_concurrent_requests_get_their_own_vectors(tiny_mean: Artifact) -> None:
    async with loaded(tiny_mean) as provider:
        texts = [f"text number {i} " * (1 + i % 9) for i in range(60)]
        results = await asyncio.gather(*(embed(provider, t) for t in texts))
        together = await embed(provider, *texts)
    np.testing.assert_allclose(
        np.concatenate([r.vectors for r in results]), together.vectors, atol=1e-6
    )
    assert sum(r.tokens for r in results) == together.tokens


async def test_truncations_are_reported_with_counts(tiny_mean: Artifact) -> None:
    limit = tiny_mean.spec.max_tokens
    async with loaded(tiny_mean) as provider:
        result = await embed(provider, "a", "b " * (limit + 50), "c")
    (cut,) = result.truncations
    assert (cut.index, cut.tokens, cut.used) == (1, limit + 52, limit)
    assert result.tokens == 3 + limit + 3


async def test_openais_ids_give_the_vector_of_their_text(tiny_mean: Artifact) -> None:
    """Alone and among many; they are read in a thread, and the result says so."""
    hello: Text = (15339, 1917)
    async with loaded(tiny_mean) as provider:
        plain = await embed(provider, "hello world")
        for result in (await embed(provider, hello), await embed(provider, *[hello] * 300)):
            assert result.read_as == "cl100k_base"
            assert result.vectors[-1].tobytes() == plain.vectors[0].tobytes()
            assert result.tokens == plain.tokens * len(result.vectors)
        with pytest.raises(TextError) as caught:
            await embed(provider, *[hello] * 30_000, (71, 6151, 385))
    assert plain.read_as is None
    assert caught.value.index == 30_000


async def test_a_fault_names_the_text_even_in_a_later_slice(tiny_mean: Artifact) -> None:
    limit = tiny_mean.spec.max_tokens
    texts = ["a " * (limit - 2)] * 3000 + ["a " * (limit + 1)]
    assert sum(map(len, texts)) > 200_000
    async with loaded(tiny_mean) as provider:
        with pytest.raises(TextError) as caught:
            await embed(provider, *texts, truncate="none")
    assert caught.value.index == 3000
    assert caught.value.code == TOO_LONG


async def test_before_load_and_after_close_it_is_not_ready(tiny_mean: Artifact) -> None:
    provider = LocalProvider(tiny_mean, threads=1, max_batch_tokens=64, max_queue_tokens=1000)
    with pytest.raises(NotReadyError):
        await embed(provider, "a")
    await provider.load()
    await provider.close()
    with pytest.raises(NotReadyError):
        await embed(provider, "a")


@pytest.mark.real
@pytest.mark.parametrize("precision", PRECISIONS)
async def test_real_weights_are_batch_invariant(minilm_artifact: Artifact, precision: str) -> None:
    """Alone, in 64 mixed, among 2,048, after a restart, with one thread and with two."""
    texts = [f"{n} " + "word " * n + "." for n in (1, 2, 5, 15, 16, 17, 60, 130, 250)] * 7 + ["x"]
    many = texts + [f"filler {n} " * (1 + n % 7) for n in range(2048 - len(texts))]
    async with loaded(minilm_artifact, precision=precision) as provider:
        together = (await embed(provider, *texts)).vectors
        among = (await embed(provider, *many)).vectors[: len(texts)]
        alone = np.concatenate([(await embed(provider, text)).vectors for text in texts])
    async with loaded(minilm_artifact, threads=1, precision=precision) as provider:
        restarted = (await embed(provider, *texts)).vectors
    assert len(texts) == 64
    for other in (among, alone, restarted):
        np.testing.assert_allclose(together, other, atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("fixture", ["kernel_cls", "kernel_mean"])
async def test_the_native_engine_does_what_the_other_does(
    fixture: str, precision: str, request: pytest.FixtureRequest, kernel_sets: tuple[str, ...]
) -> None:
    """To the bit whatever stands beside a text, and its threads end with it."""
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    artifact: Artifact = request.getfixturevalue(fixture)
    texts = [f"{n} " + "word " * n for n in range(60)]
    before = {thread.name for thread in threading.enumerate()}
    async with loaded(artifact, precision=precision) as provider:
        expected = (await embed(provider, *texts)).vectors
    async with loaded(artifact, precision=precision, engine=NATIVE, threads=3) as provider:
        together = (await embed(provider, *texts)).vectors
        await asyncio.sleep(0.4)  # by then all threads are there for a text alone
        assert any(t.name.startswith("engine-") for t in threading.enumerate())
        alone = np.concatenate([(await embed(provider, text)).vectors for text in texts])
        found = await states(provider, *texts[:3])
    assert together.tobytes() == alone.tobytes()
    cosine = (l2_normalize(together) * l2_normalize(expected)).sum(1)
    assert cosine.min() > (0.99999 if precision == "fp32" else 0.99)
    rows = np.stack([pooled(artifact, one) for one in found.states])
    assert (l2_normalize(rows) * l2_normalize(together[:3])).sum(1).min() > 0.99
    assert {t.name for t in threading.enumerate() if "rank" in t.name} <= before


def test_the_native_engine_starts_without_onnxruntime(
    kernel_mean: Artifact, kernel_sets: tuple[str, ...]
) -> None:
    """In a process of its own, from settings to the first vector."""
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    code = (
        "import asyncio, sys\n"
        "from cortex_embed.composition import build_service, locate_models\n"
        "from cortex_embed.config import Settings\n"
        "from cortex_embed.domain import EmbedRequest\n"
        "settings = Settings(model=(sys.argv[1],), precision='int8')\n"
        "async def main():\n"
        "    service = build_service(settings, locate_models(settings))\n"
        "    await service.load()\n"
        "    await service.embed(EmbedRequest(texts=('a',)))\n"
        "    print(service.models()[0].facts['engine'], 'onnxruntime' in sys.modules)\n"
        "    await service.close()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(kernel_mean.directory)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout.strip(), done.stderr) == ("native False", "")


async def test_tokens_there_and_back(tiny_cls: Artifact) -> None:
    async with loaded(tiny_cls) as provider:
        bare, with_prefix = [
            (await provider.tokenize(["one two"], input_type=intent, special=True))[0]
            for intent in (None, "query")
        ]
        assert len(with_prefix) > len(bare)
        (text,) = await provider.detokenize([[token.id for token in bare]], skip_special=True)
        assert text == "one two"


async def test_tokens_need_a_loaded_model(tiny_cls: Artifact) -> None:
    provider = LocalProvider(tiny_cls, threads=1, max_batch_tokens=64, max_queue_tokens=1000)
    with pytest.raises(NotReadyError):
        await provider.tokenize(["a"], input_type=None, special=True)
    await provider.close()


async def states(provider: LocalProvider, *texts: Text, truncate: Truncate = "end") -> TokenStates:
    return await provider.token_states(texts, input_type=None, truncate=truncate)


def pooled(artifact: Artifact, rows: Any) -> Any:
    return rows[0] if artifact.spec.pooling == "cls" else rows.mean(axis=0)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "fixture", ["tiny_cls", "tiny_mean", pytest.param("minilm_artifact", marks=pytest.mark.real)]
)
async def test_states_pool_to_the_vector_whoever_stands_beside(
    fixture: str, precision: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    texts = [f"{n} " + "word " * n + "." for n in (1, 2, 5, 15, 16, 17, 60, 130, 250)] * 4
    async with loaded(artifact, precision=precision) as provider:
        together = await states(provider, *texts)
        alone = [(await states(provider, text)).states[0] for text in texts]
        vectors = await embed(provider, *texts)
    assert together.tokens == vectors.tokens == sum(map(len, together.states))
    assert together.truncations == vectors.truncations
    for text, rows, own in zip(texts, together.states, alone, strict=True):
        assert rows.shape == own.shape
        np.testing.assert_allclose(rows, own, rtol=0, atol=1e-6, err_msg=text)
    means = np.stack([pooled(artifact, rows) for rows in together.states])
    np.testing.assert_allclose(
        l2_normalize(means), l2_normalize(vectors.vectors), rtol=0, atol=1e-6
    )


async def test_states_are_cut_and_refused_as_vectors_are(tiny_mean: Artifact) -> None:
    limit = tiny_mean.spec.max_tokens
    async with loaded(tiny_mean) as provider:
        found = await states(provider, "a", "word " * 100)
        assert [len(rows) for rows in found.states] == [3, limit]
        assert [(cut.index, cut.used) for cut in found.truncations] == [(1, limit)]
        with pytest.raises(TextError) as caught:
            await states(provider, "a", "word " * 100, truncate="none")
        assert caught.value.index == 1


async def test_states_of_one_reply_are_bounded(tiny_mean: Artifact) -> None:
    full = MAX_TOKENS // tiny_mean.spec.max_tokens
    async with loaded(tiny_mean) as provider:
        assert len((await states(provider, *["word " * 100] * full)).states) == full
        with pytest.raises(InvalidRequestError, match=f"the limit is {MAX_TOKENS} a request"):
            await states(provider, *["word " * 100] * (full + 1))


async def test_states_stay_within_the_memory_that_is_left(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = LocalProvider(
        tiny_mean,
        threads=1,
        max_batch_tokens=64,
        max_queue_tokens=1000,
        max_memory=2**30,
    )
    await provider.load()
    assert len((await states(provider, "a")).states) == 1
    monkeypatch.setattr(memory, "resident", lambda: 2**30 - 1000)
    with pytest.raises(InvalidRequestError, match="what --max-memory leaves room for now is 0"):
        await states(provider, "a")
    await provider.close()


async def test_an_artifact_without_that_graph_says_so(tiny_mean: Artifact) -> None:
    older = replace(tiny_mean, graphs=tuple(g for g in tiny_mean.graphs if g.output == "text"))
    async with loaded(older) as provider:
        assert (await embed(provider, "a")).tokens == 3
        with pytest.raises(UnsupportedError, match="has no graph of token states"):
            await states(provider, "a")


async def test_states_need_a_loaded_model(tiny_mean: Artifact) -> None:
    provider = LocalProvider(tiny_mean, threads=1, max_batch_tokens=64, max_queue_tokens=1000)
    with pytest.raises(NotReadyError):
        await states(provider, "a")
    await provider.close()


async def test_tokens_of_a_request_are_bounded_after_truncation(tiny_mean: Artifact) -> None:
    metrics = Metrics()
    provider = LocalProvider(
        tiny_mean,
        threads=1,
        max_batch_tokens=256,
        max_queue_tokens=1_000_000,
        max_request_tokens=3 * tiny_mean.spec.max_tokens,
        metrics=metrics,
    )
    await provider.load()
    try:
        long = "word " * 2 * tiny_mean.spec.max_tokens
        pooled = await embed(provider, long, long, long)
        assert pooled.tokens == 3 * tiny_mean.spec.max_tokens
        ran = metrics.families()
        with pytest.raises(TokensError, match=f"has {4 * tiny_mean.spec.max_tokens} tokens"):
            await embed(provider, long, long, long, long)
        again = metrics.families()
        assert [_count(f, "batch_texts") for f in ran] == [_count(f, "batch_texts") for f in again]
    finally:
        await provider.close()


def _count(family: Family, name: str) -> list[int]:
    """How often a histogram of this name was added to."""
    return [
        sum(sample.counts)
        for sample in family.samples.values()
        if family.name.endswith(name) and isinstance(sample, Histogram)
    ]
