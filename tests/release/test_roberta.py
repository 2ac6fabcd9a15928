"""Places are counted from the ids, as transformers does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from bert_source import read_weights
from make_families import TINY, make_family
from recipe import Recipe
from roberta import Roberta, arrange, read_config

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("ids", "rows"),
    [
        ([0, 90, 91, 2], [2, 3, 4, 5]),
        ([0, 1, 90, 1, 1, 91, 2], [2, 1, 3, 1, 1, 4, 5]),  # padding tokens in the text
        ([1, 1], [1, 1]),
    ],
)
def test_a_token_has_the_row_of_its_place(tmp_path: Path, ids: list[int], rows: list[int]) -> None:
    """`rows` is what create_position_ids_from_input_ids gives with padding_idx 1."""
    source, spec = make_family(tmp_path / "m", "tiny-roberta"), TINY["tiny-roberta"]
    config = read_config(source / "config.json", spec)
    encoder = arrange(read_weights(source / "model.safetensors"), config)
    blocks = Roberta(encoder, config, Recipe(), compatible=True)
    name = blocks.position_rows()
    graph = helper.make_graph(
        blocks.g.nodes, "places",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["b", "s"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        list(blocks.g.initializers.values()),
    )  # fmt: skip
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    (found,) = ort.InferenceSession(model.SerializeToString()).run(None, {"input_ids": [ids]})
    np.testing.assert_array_equal(found[0], encoder.positions[rows])
    assert encoder.positions.shape == (66, 32)
    assert config.places == 64
