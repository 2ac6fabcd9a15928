"""The tiny decoder is laid out as decoders are published, and is the same for ever."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from cortex_embed.models.repository import describe
from make_decoder import LAYERS, PREFIX, decoder_weights, make_decoder

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS = "74c926dfa5e07ed801b33662ecbccc7b064ae375df6737e2bc203e5655f78a31"


def test_the_numbers_never_change() -> None:
    digest = sha256()
    for name, weight in sorted(decoder_weights(rows=64).items()):
        digest.update(name.encode() + weight.astype("<f4").tobytes())
    assert digest.hexdigest() == WEIGHTS


@pytest.mark.parametrize("fused", [False, True])
def test_it_takes_a_cache_and_gives_one(tmp_path: Path, fused: bool) -> None:
    published = make_decoder(tmp_path / "tiny-decoder", fused=fused)
    model = onnx.load(published / "onnx" / "model.onnx")
    onnx.checker.check_model(model)
    cache = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
    assert [port.name for port in model.graph.input] == [
        "input_ids",
        "attention_mask",
        "position_ids",
        *(f"past_key_values.{one}" for one in cache),
    ]
    assert [port.name for port in model.graph.output] == [
        "last_hidden_state",
        *(f"present.{one}" for one in cache),
    ]
    operators = {node.op_type for node in model.graph.node}
    assert ("GroupQueryAttention" in operators) is fused
    assert ("Softmax" in operators) is not fused
    spec = describe(published).spec
    assert (spec.pooling, spec.query_prefix, spec.document_prefix) == ("last_token", PREFIX, "")


def test_a_text_goes_on_where_its_cache_ends(tmp_path: Path) -> None:
    """Else the empty cache that we feed could be right by chance."""
    import onnxruntime as ort

    file = make_decoder(tmp_path / "tiny-decoder") / "onnx" / "model.onnx"
    session = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_inputs()][3:]
    empty = {name: np.zeros((1, 2, 0, 16), dtype=np.float32) for name in names}

    def run(ids: list[int], start: int, cache: dict[str, np.ndarray]) -> list[np.ndarray]:
        given = {
            "input_ids": np.array([ids], dtype=np.int64),
            "attention_mask": np.ones((1, start + len(ids)), dtype=np.int64),
            "position_ids": np.arange(start, start + len(ids), dtype=np.int64)[None],
        }
        answer: list[np.ndarray] = session.run(None, given | cache)
        return answer

    whole, *_ = run([5, 9, 70, 31, 8], 0, empty)
    first, *present = run([5, 9, 70], 0, empty)
    rest, *_ = run([31, 8], 3, dict(zip(names, present, strict=True)))
    np.testing.assert_allclose(np.concatenate([first, rest], axis=1), whole, atol=1e-5, rtol=0)
