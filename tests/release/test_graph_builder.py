from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graph_builder import GraphBuilder, WeightsFile, move_weights


def test_graphs_share_a_weights_file(tmp_path: Path) -> None:
    import onnxruntime as ort

    table = np.random.RandomState(0).standard_normal((40, 16)).astype(np.float32)
    data = WeightsFile("shared.data")
    for name in ("one", "two"):
        g = GraphBuilder()
        g.node("Gather", g.constant("table", table), "input_ids", out="rows")
        axes = g.ints(1)
        g.node("ReduceSum" if name == "one" else "ReduceMax", "rows", axes, out="y", keepdims=0)
        model = g.model(["input_ids"], {"y": ["batch", 16]}, opset=20)
        move_weights(model, data)
        (tmp_path / f"{name}.onnx").write_bytes(model.SerializeToString())
    data.write(tmp_path)
    assert (tmp_path / "shared.data").stat().st_size == table.nbytes
    assert (tmp_path / "one.onnx").stat().st_size < 1000
    ids = np.array([[1, 2, 39]])
    for name, expected in (("one", table[ids[0]].sum(0)), ("two", table[ids[0]].max(0))):
        session = ort.InferenceSession(str(tmp_path / f"{name}.onnx"))
        np.testing.assert_allclose(session.run(None, {"input_ids": ids})[0][0], expected, rtol=1e-5)


def test_two_tensors_cannot_have_one_name() -> None:
    from onnx import numpy_helper

    data = WeightsFile("w")
    data.add(numpy_helper.from_array(np.zeros(9, np.float32), "t"))
    data.add(numpy_helper.from_array(np.zeros(9, np.float32), "t"))
    with pytest.raises(ValueError, match="two tensors are named 't'"):
        data.add(numpy_helper.from_array(np.ones(9, np.float32), "t"))
