from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.errors import ModelFileError
from cortex_embed.providers.engine import Engine, newest_opset

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.store import Artifact


def random_texts(count: int, longest: int, vocabulary: int) -> list[np.ndarray]:
    draw = np.random.RandomState(1)
    return [draw.randint(5, vocabulary, draw.randint(1, longest + 1)) for _ in range(count)]


@pytest.mark.parametrize("fixture", ["tiny_cls", "tiny_mean"])
def test_a_text_is_the_same_alone_and_padded(fixture: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    engine = Engine(artifact.graph_for("fp32", newest_opset()), dimensions=artifact.spec.dimensions)
    texts = random_texts(64, artifact.spec.max_tokens, 100)
    together = engine.run(texts)
    alone = np.concatenate([engine.run([t]) for t in texts])
    assert together.shape == (64, artifact.spec.dimensions)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_many_threads_may_run_at_once(tiny_mean: Artifact) -> None:
    engine = Engine(
        tiny_mean.graph_for("fp32", newest_opset()), dimensions=tiny_mean.spec.dimensions
    )
    texts = random_texts(200, 30, 100)
    one_by_one = [engine.run([t]) for t in texts]
    with ThreadPoolExecutor(4) as pool:
        at_once = list(pool.map(lambda t: engine.run([t]), texts))
    for a, b in zip(one_by_one, at_once, strict=True):
        np.testing.assert_array_equal(a, b)


def test_without_packed_weights_the_vectors_are_the_same(tiny_mean: Artifact) -> None:
    graph, texts = tiny_mean.graph_for("fp32", newest_opset()), random_texts(20, 30, 100)
    packed, plain = (
        Engine(graph, dimensions=32, prepack=prepack).run(texts) for prepack in (True, False)
    )
    np.testing.assert_allclose(packed, plain, atol=1e-6)


def test_a_broken_graph_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"this is no graph")
    with pytest.raises(ModelFileError, match="cannot load") as caught:
        Engine(file, dimensions=32)
    assert str(file) in caught.value.message


def test_a_graph_of_another_width_is_refused(tiny_mean: Artifact) -> None:
    with pytest.raises(ModelFileError, match=r"batch, 999"):
        Engine(tiny_mean.graph_for("fp32", newest_opset()), dimensions=999)
