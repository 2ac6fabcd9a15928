"""A decoder with a key-value cache, as its authors publish it, against its blocks in numpy.

Such a graph wants an empty cache, positions, and a mask of what it sees; the last real token is
pooled. The reference reads one text at a time, in float64, and knows neither cache nor padding.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from cortex_embed.errors import ModelFileError
from cortex_embed.models.repository import open_directory
from cortex_embed.providers.local import LocalProvider
from cortex_embed.providers.repository_engine import RepositoryEngine
from cortex_embed.vectors import l2_normalize
from make_decoder import (
    EPSILON,
    HEADS,
    HIDDEN,
    KEY_HEADS,
    LAYERS,
    POSITIONS,
    PREFIX,
    WIDTH,
    decoder_weights,
    make_decoder,
    rotations,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cortex_embed.domain import InputType
    from cortex_embed.vectors import Vectors

    Doubles = NDArray[np.float64]

FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])
TEXTS = [
    "a",
    "hello world",
    "the quick brown fox jumps over the lazy dog " * 9,
    "café naïve 世界",
    *(f"text number {n} " * (1 + n % 7) for n in range(20)),
    "word " * 200,  # over the limit
]


def normed(x: Doubles, weight: Doubles) -> Doubles:
    scaled: Doubles = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON) * weight
    return scaled


def turned(x: Doubles) -> Doubles:
    """Queries or keys [heads, length, width], each by the angle of its place."""
    cosines, sines = (table[: x.shape[1]].astype(np.float64) for table in rotations())
    a, b = np.split(x, 2, axis=-1)
    return np.concatenate([a * cosines - b * sines, b * cosines + a * sines], axis=-1)


def states(ids: Sequence[int], weights: dict[str, Doubles]) -> Doubles:
    """Token states of one text, [length, hidden]."""
    x = weights["embed_tokens"][list(ids)]
    length = len(ids)

    def heads(name: str, count: int) -> Doubles:
        return (inner @ weights[name]).reshape(length, count, WIDTH).transpose(1, 0, 2)

    for layer in map(str, range(LAYERS)):
        inner = normed(x, weights[f"{layer}.input_norm"])
        q = turned(normed(heads(f"{layer}.q", HEADS), weights[f"{layer}.q_norm"]))
        k = turned(normed(heads(f"{layer}.k", KEY_HEADS), weights[f"{layer}.k_norm"]))
        k, v = (np.repeat(t, HEADS // KEY_HEADS, 0) for t in (k, heads(f"{layer}.v", KEY_HEADS)))
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(WIDTH)
        scores[:, np.triu(np.ones((length, length), dtype=bool), 1)] = -np.inf
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        x = x + (shares @ v).transpose(1, 0, 2).reshape(length, -1) @ weights[f"{layer}.o"]
        inner = normed(x, weights[f"{layer}.post_norm"])
        gate = inner @ weights[f"{layer}.gate"]
        x = (
            x
            + (gate / (1 + np.exp(-gate)) * (inner @ weights[f"{layer}.up"]))
            @ (weights[f"{layer}.down"])
        )
    return normed(x, weights["norm"])


def expected(published: Path, texts: Sequence[str]) -> Vectors:
    """float32 [n, hidden]: the normalized state of each text's last token."""
    tokenizer = Tokenizer.from_file(str(published / "tokenizer.json"))
    tokenizer.enable_truncation(POSITIONS)
    rows = tokenizer.get_vocab_size()
    weights = {name: w.astype(np.float64) for name, w in decoder_weights(rows).items()}
    last = [states(tokenizer.encode(text).ids, weights)[-1] for text in texts]
    return l2_normalize(np.array(last, dtype=np.float32))


async def embedded(
    published: Path, texts: Sequence[str], *, input_type: InputType | None = None, one: bool = False
) -> Vectors:
    artifact = open_directory(published)
    assert (artifact.spec.pooling, artifact.spec.max_tokens) == ("last_token", POSITIONS)
    provider = LocalProvider(artifact, threads=2, max_batch_tokens=2048, max_queue_tokens=1_000_000)
    await provider.load()
    try:
        requests = [[text] for text in texts] if one else [list(texts)]
        parts = [
            await provider.embed(r, input_type=input_type, truncate="end", priority="bulk")
            for r in requests
        ]
        return l2_normalize(np.concatenate([part.vectors for part in parts]))
    finally:
        await provider.close()


@FUSED
async def test_vectors_are_those_of_the_blocks(tmp_path: Path, fused: bool) -> None:
    published = make_decoder(tmp_path / "tiny-decoder", fused=fused)
    together = await embedded(published, TEXTS)
    assert together.shape == (len(TEXTS), HIDDEN)
    np.testing.assert_allclose(together, expected(published, TEXTS), atol=1e-5, rtol=0)
    alone = await embedded(published, TEXTS, one=True)
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)


@FUSED
async def test_an_instruction_stands_before_a_query_alone(tmp_path: Path, fused: bool) -> None:
    published = make_decoder(tmp_path / "tiny-decoder", fused=fused)
    queries = await embedded(published, TEXTS, input_type="query")
    reference = expected(published, [PREFIX + text for text in TEXTS])
    np.testing.assert_allclose(queries, reference, atol=1e-5, rtol=0)
    documents = await embedded(published, TEXTS, input_type="document")
    np.testing.assert_allclose(documents, expected(published, TEXTS), atol=1e-5, rtol=0)


@FUSED
def test_any_neighbours_and_any_padding_leave_a_text_as_it_is(tmp_path: Path, fused: bool) -> None:
    graph = make_decoder(tmp_path / "tiny-decoder", fused=fused) / "onnx" / "model.onnx"
    engine = RepositoryEngine(graph, dimensions=HIDDEN, pooling="last_token", threads=2)
    assert engine.layout.how == "output last_hidden_state, pooled by us (last_token)"
    numbers = np.random.RandomState(1)
    batch = [numbers.randint(0, 200, n) for n in (1, POSITIONS, 2, 17, 1, 64)]
    together = l2_normalize(engine.run(batch))
    alone = np.concatenate([l2_normalize(engine.run([ids])) for ids in batch])
    np.testing.assert_allclose(together, alone, atol=1e-6, rtol=0)


async def test_a_cache_in_half_precision_is_fed_as_such(tmp_path: Path) -> None:
    """Repositories have model_fp16.onnx beside; a person may name it in cortex-embed.toml."""
    published = make_decoder(tmp_path / "tiny-decoder")
    file = published / "onnx" / "model.onnx"
    model = onnx.load(file)
    half, caches = onnx.TensorProto.FLOAT16, []
    for port in model.graph.input:
        if port.name.startswith("past_key_values."):
            port.type.tensor_type.elem_type = half
            caches.append(port.name)
    assert len(caches) == 2 * LAYERS
    for node in model.graph.node:
        node.input[:] = [f"{n}.wide" if n in caches else n for n in node.input]
    casts = [
        onnx.helper.make_node("Cast", [n], [f"{n}.wide"], to=onnx.TensorProto.FLOAT) for n in caches
    ]
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, file)
    found = await embedded(published, TEXTS[:4])
    np.testing.assert_allclose(found, expected(published, TEXTS[:4]), atol=1e-5, rtol=0)


async def test_positions_are_not_made_up_for_a_family_that_counts_them_its_own_way(
    tmp_path: Path,
) -> None:
    published = make_decoder(tmp_path / "tiny-decoder")
    config = json.loads((published / "config.json").read_text(encoding="utf-8"))
    config["model_type"] = "roberta"
    (published / "config.json").write_text(json.dumps(config), encoding="utf-8")
    provider = LocalProvider(
        open_directory(published), threads=1, max_batch_tokens=256, max_queue_tokens=1000
    )
    with pytest.raises(ModelFileError, match="wants position_ids"):
        await provider.load()
    await provider.close()
