from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cortex_embed.errors import NotReadyError, TextError
from cortex_embed.providers.local import LocalProvider

if TYPE_CHECKING:
    from cortex_embed.domain import Pooled, Text
    from cortex_embed.models.store import Artifact


PRECISIONS = ["fp32", "int8"]


@asynccontextmanager
async def loaded(
    artifact: Artifact, threads: int = 2, precision: str = "fp32"
) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider(
        artifact,
        threads=threads,
        max_batch_tokens=256,
        max_queue_tokens=1_000_000,
        precision=precision,
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
