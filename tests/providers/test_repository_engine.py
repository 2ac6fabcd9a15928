"""A graph as its authors publish it gives the vectors of our own export of the same weights."""

from __future__ import annotations

import asyncio
import json
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from msgspec.structs import replace

from cortex_embed.errors import ModelFileError, TextError, UnsupportedError
from cortex_embed.metrics import Histogram, Metrics
from cortex_embed.models.artifact import MANIFEST, load_artifact
from cortex_embed.models.repository import DESCRIPTION, describe, manifest, open_directory
from cortex_embed.providers.local import LocalProvider
from cortex_embed.providers.repository_engine import RepositoryEngine
from cortex_embed.vectors import l2_normalize
from export_onnx import export
from make_tiny import make_repository, make_tiny, tiny_spec
from tests.models_fixtures import embed_directly

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact
    from cortex_embed.vectors import Vectors
    from make_tiny import TinyPooling

TEXTS = [
    "hello world",
    "a",
    "the quick brown fox jumps over the lazy dog " * 9,
    "café naïve",
    "fox",
]
TEXTS += [f"text number {n} " * (1 + n % 7) for n in range(40)]
POOLINGS = pytest.mark.parametrize("pooling", ["cls", "mean"])


def installed(directory: Path, pooling: TinyPooling, own: str = "") -> Artifact:
    """The published repository, described and laid side by side as an artifact directory."""
    published = make_repository(directory / f"tiny-{pooling}", pooling)
    (published / "model.safetensors").unlink()  # only the graph is left to read weights from
    (published / DESCRIPTION).write_text(own, encoding="utf-8")
    description = describe(published)
    out = directory / "artifact"
    out.mkdir()
    for name in ("config.json", "tokenizer.json", description.graph):
        shutil.copy(published / name, out)
    document = manifest(out, description)
    (out / MANIFEST).write_text(json.dumps(document), encoding="utf-8")
    return load_artifact(out)


@asynccontextmanager
async def loaded(
    artifact: Artifact, metrics: Metrics | None = None
) -> AsyncIterator[LocalProvider]:
    provider = LocalProvider(
        artifact, threads=2, max_batch_tokens=256, max_queue_tokens=1_000_000, metrics=metrics
    )
    await provider.load()
    try:
        yield provider
    finally:
        await provider.close()


async def embed(provider: LocalProvider, *texts: str, query: bool = False) -> Vectors:
    pooled = await provider.embed(
        texts, input_type="query" if query else None, truncate="end", priority="bulk"
    )
    return pooled.vectors


def own_export(pooling: TinyPooling, request: pytest.FixtureRequest) -> Artifact:
    artifact: Artifact = request.getfixturevalue(f"tiny_{pooling}")
    return artifact


@POOLINGS
@pytest.mark.parametrize("alone", [False, True])
async def test_parity_with_our_own_export(
    tmp_path: Path, pooling: TinyPooling, alone: bool, request: pytest.FixtureRequest
) -> None:
    artifact = installed(tmp_path, pooling, "alone = true\n" if alone else "")
    assert (artifact.is_own, artifact.alone, artifact.precisions) == (False, alone, ("fp32",))
    expected = embed_directly(own_export(pooling, request), TEXTS, batch=1)
    metrics = Metrics()
    async with loaded(artifact, metrics) as provider:
        together = await embed(provider, *TEXTS)
        singly = np.concatenate([await embed(provider, text) for text in TEXTS])
        at_once = await asyncio.gather(*(embed(provider, text) for text in TEXTS))
    assert together.shape == (len(TEXTS), 32)
    # Text by text the same whatever came along, and the same as the other graph's.
    np.testing.assert_allclose(together, singly, atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.concatenate(at_once), singly, atol=1e-6, rtol=0)
    np.testing.assert_allclose(singly, expected, atol=1e-5, rtol=0)
    np.testing.assert_allclose(l2_normalize(together), l2_normalize(expected), atol=1e-5, rtol=0)
    runs = {one.name: one for one in metrics.families()}["cortex_embed_batch_texts"].samples[()]
    assert isinstance(runs, Histogram)
    assert runs.sum == 3 * len(TEXTS)
    assert (sum(runs.counts) == 3 * len(TEXTS)) is alone


@POOLINGS
async def test_prefixes_limits_and_pooling_are_those_of_its_files(
    tmp_path: Path, pooling: TinyPooling, request: pytest.FixtureRequest
) -> None:
    artifact, spec = installed(tmp_path, pooling), tiny_spec(pooling)
    for name in ("id", "pooling", "normalize", "dimensions", "max_tokens", "family"):
        assert getattr(artifact.spec, name) == getattr(spec, name)
    assert artifact.spec.query_prefix == spec.query_prefix
    assert artifact.spec.document_prefix == spec.document_prefix
    queries = [spec.query_prefix + text for text in TEXTS]
    expected = embed_directly(own_export(pooling, request), queries, batch=1)
    async with loaded(artifact) as provider:
        found = await embed(provider, *TEXTS, query=True)
        with pytest.raises(UnsupportedError, match="no graph of token states"):
            await provider.token_states(TEXTS[:1], input_type=None, truncate="end")
    np.testing.assert_allclose(found, expected, atol=1e-5, rtol=0)


async def test_a_text_without_tokens_holds_nobody_up(tmp_path: Path) -> None:
    """It has waited for ever, and whoever came after it."""
    published = make_repository(tmp_path / "tiny-mean", "mean")
    tokenizer = json.loads((published / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["post_processor"] = None
    (published / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    async with loaded(open_directory(published)) as provider, asyncio.timeout(30):
        with pytest.raises(TextError, match="nothing is left of the text"):
            await embed(provider, "hello", " ")
        assert (await embed(provider, "hello")).shape == (1, 32)


def test_what_is_read_is_said_and_one_session_does_all(tmp_path: Path) -> None:
    graph = make_repository(tmp_path / "tiny", "mean") / "onnx" / "model.onnx"
    engine = RepositoryEngine(graph, dimensions=32, pooling="mean", threads=2)
    assert engine.layout.how == "output last_hidden_state, pooled by us (mean)"
    batch = [np.array([2, 40, 3]), np.array([2, 3])]
    before = engine.run(batch)
    engine.widen()
    np.testing.assert_array_equal(engine.run_alone(batch), before)
    assert before.dtype == np.float32


def test_another_width_than_the_models_is_refused(tmp_path: Path) -> None:
    graph = make_repository(tmp_path / "tiny", "mean") / "onnx" / "model.onnx"
    with pytest.raises(ModelFileError, match="with 16 dimensions, found last_hidden_state"):
        RepositoryEngine(graph, dimensions=16, pooling="mean")
    # Exporters sometimes leave the width open: then it shows with the first text.
    model = onnx.load(graph)
    for output in model.graph.output:
        output.type.tensor_type.shape.dim[-1].dim_param = "width"
    onnx.save(model, graph)
    engine = RepositoryEngine(graph, dimensions=16, pooling="mean")
    with pytest.raises(ModelFileError, match="gives 32 dimensions, not 16"):
        engine.run([np.array([2, 40, 3])])


def test_a_graph_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    with pytest.raises(ModelFileError, match="cannot load"):
        RepositoryEngine(tmp_path / "model.onnx", dimensions=32, pooling="cls")


async def test_a_last_token_and_a_prefix_as_qwen_and_e5_want_them(tmp_path: Path) -> None:
    """Against our own export of the same weights, whose pooling is held against transformers."""
    said = 'pooling = "last_token"\nquery_prefix = "search_query: "\n'
    published = installed(tmp_path, "mean", said)
    spec = replace(tiny_spec("mean"), pooling="last_token")
    own = export(
        make_tiny(tmp_path / "source", "mean"), spec, tmp_path / "own", precisions=["fp32"]
    )
    async with loaded(published) as theirs, loaded(own) as ours:
        expected = l2_normalize(await embed(ours, *[f"search_query: {text}" for text in TEXTS]))
        together = l2_normalize(await embed(theirs, *TEXTS, query=True))
        alone = [l2_normalize(await embed(theirs, text, query=True))[0] for text in TEXTS]
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
