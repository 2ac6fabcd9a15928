from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.config import Settings
from cortex_embed.errors import UsageError
from cortex_embed.metrics import Histogram, Metrics
from cortex_embed.providers.assembly import pool_of
from cortex_embed.providers.engines import Chosen
from tests.models_fixtures import embed_directly

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact
    from cortex_embed.providers.pool import ModelPool

MIB = 2**20
TEXTS = ["the quick brown fox", "jumps", "over the lazy dog " * 30]


async def vectors(pool: ModelPool, model: Artifact) -> np.typing.NDArray[np.float32]:
    await pool.prepare(model.spec.id, 60)
    with pool.use(model.spec.id) as provider:
        pooled = await provider.embed(TEXTS, input_type=None, truncate="end", priority="bulk")
    return pooled.vectors


async def test_the_one_model_has_all_of_max_memory(tiny_mean: Artifact) -> None:
    with pytest.raises(UsageError, match="--max-memory: 1 MiB is too little"):
        await pool_of(Settings(max_memory=MIB), [Chosen(tiny_mean, "fp32")], Metrics()).load()


async def test_several_models_each_give_their_own_vectors(
    tiny_mean: Artifact, tiny_cls: Artifact
) -> None:
    models = [tiny_mean, tiny_cls]
    settings = Settings(threads=1, max_memory=400 * MIB, max_models_memory=20 * MIB)
    pool = pool_of(settings, [Chosen(one, "fp32") for one in models], Metrics())
    await pool.load()
    for model in (*models, *models):
        expected = embed_directly(model, TEXTS, batch=1)
        np.testing.assert_allclose(await vectors(pool, model), expected, atol=1e-6)
        assert [pool.is_loaded(one.spec.id) for one in models] == [one is model for one in models]
    assert await pool.close()


async def test_all_models_count_in_one_place_and_one_that_is_gone_no_more(
    tiny_mean: Artifact, tiny_cls: Artifact
) -> None:
    metrics = Metrics()
    models = [tiny_mean, tiny_cls]
    pool = pool_of(Settings(threads=1), [Chosen(one, "fp32") for one in models], metrics)
    await pool.load()
    waiting = []
    for model in models:
        await pool.prepare(model.spec.id, 60)
        waiting.append(asyncio.create_task(vectors(pool, model)))
    most = 0
    while not all(task.done() for task in waiting):
        most = max(most, metrics.waiting()[0])
        await asyncio.sleep(0)
    assert 0 < most <= 2 * len(TEXTS)
    assert metrics.waiting() == (0, 0)
    counted = {one.name: one for one in metrics.families()}
    ran = counted["cortex_embed_text_tokens"].samples[()]
    assert isinstance(ran, Histogram)
    assert sum(ran.counts) == 2 * len(TEXTS)
    assert await pool.close()
    assert metrics.waiting() == (0, 0)


async def test_the_hash_beside_other_models(tiny_mean: Artifact) -> None:
    settings = Settings(threads=1, max_memory=400 * MIB)
    pool = pool_of(settings, [None, Chosen(tiny_mean, "fp32")], Metrics())
    await pool.load()
    assert [pool.is_loaded(name) for name in ("hash", "tiny-mean")] == [True, False]
    expected = embed_directly(tiny_mean, TEXTS, batch=1)
    np.testing.assert_allclose(await vectors(pool, tiny_mean), expected, atol=1e-6)
    with pool.use("hash") as provider:
        pooled = await provider.embed(TEXTS, input_type=None, truncate="end", priority="bulk")
    assert pooled.vectors.shape == (3, 384)
    assert await pool.close()


async def test_the_hash_alone() -> None:
    pool = pool_of(Settings(max_memory=MIB), [None], Metrics())
    await pool.load()
    assert pool.is_loaded("hash")
    assert await pool.close()
