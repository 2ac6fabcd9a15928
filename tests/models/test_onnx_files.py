"""The files beside a graph, wherever in it they are named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import helper

from cortex_embed.errors import ModelFileError
from cortex_embed.models.onnx_files import external_files
from tests.hub import repository

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


def tensor(location: str) -> onnx.TensorProto:
    made = onnx.TensorProto(name=location, data_type=onnx.TensorProto.FLOAT, dims=[1])
    made.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("offset", "0"), ("location", location), ("length", "4")):
        entry = made.external_data.add()
        entry.key, entry.value = key, value
    return made


def test_initializers_constants_and_branches_are_all_seen(tmp_path: Path) -> None:
    """bge-m3's graph has weights in an initializer's file, and a constant in one of its own."""
    inner = helper.make_graph(
        [helper.make_node("Constant", [], ["c"], value=tensor("inner.data"))], "inner", [], []
    )
    nodes = [
        helper.make_node("Constant", [], ["d"], value=tensor("Constant_7_attr__value")),
        helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner),
    ]
    inline = helper.make_tensor("inline", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    graph = helper.make_graph(nodes, "g", [], [], [tensor("model.onnx_data"), inline])
    function = helper.make_function(
        "d", "f", [], ["o"], [helper.make_node("Constant", [], ["o"], value=tensor("f.data"))], []
    )
    model = helper.make_model(graph, functions=[function], producer_name="location")
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert external_files(path) == (
        "Constant_7_attr__value", "f.data", "inner.data", "model.onnx_data"
    )  # fmt: skip


def test_our_own_graphs_have_one(tiny_mean: Artifact) -> None:
    for graph in tiny_mean.graphs:
        assert external_files(tiny_mean.directory / graph.file) == (graph.data,)


def test_a_graph_may_have_none(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(repository()["onnx/model.onnx"])
    assert external_files(path) == ()


@pytest.mark.parametrize("cut", [0, 1, 7, 100, -1])
def test_what_is_no_graph_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(repository()["onnx/model.onnx"][:cut] if cut else b"")
    with pytest.raises(ModelFileError, match="is not an ONNX file"):
        external_files(path)


@pytest.mark.parametrize("content", [b"\xff" * 64, b"<html>no</html>", b"\x3a\x80\x80\x80\x80\x7f"])
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelFileError):
        external_files(path)
