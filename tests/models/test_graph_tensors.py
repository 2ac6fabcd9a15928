"""The graphs as data, against what the onnx package reads of the same files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from cortex_embed.errors import ModelFileError, NativeEngineError
from cortex_embed.models.graph_tensors import read_graph

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


@pytest.mark.parametrize(
    "fixture", ["tiny_cls", "kernel_mean", pytest.param("minilm_artifact", marks=pytest.mark.real)]
)
def test_every_graph_of_ours_is_read_whole(fixture: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    for row in artifact.graphs:
        path = artifact.directory / row.file
        found, expected = read_graph(path), onnx.load(str(path)).graph
        assert found.outputs == [one.name for one in expected.output]
        assert found.tensors.keys() == {one.name for one in expected.initializer}
        for tensor in expected.initializer:
            array = numpy_helper.to_array(tensor)
            read = found.tensors[tensor.name]
            assert (read.dtype, read.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(read, array)
            assert not read.flags.writeable
        assert list(found.nodes) == [node.output[0] for node in expected.node]
        for node in expected.node:
            read_node = found.nodes[node.output[0]]
            assert (read_node.operator, read_node.inputs) == (node.op_type, tuple(node.input))
            wanted = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            texts = {k: v.decode() if isinstance(v, bytes) else v for k, v in wanted.items()}
            assert read_node.attributes == texts


def test_large_tensors_are_views_of_the_file(tiny_mean: Artifact) -> None:
    found = read_graph(tiny_mean.graph)
    offset, length = found.places["0.up.weight"]
    whole = np.frombuffer((tiny_mean.directory / "model.onnx.data").read_bytes(), dtype=np.uint8)
    weight = found.tensors["0.up.weight"]
    assert not weight.flags.owndata
    np.testing.assert_array_equal(weight.view(np.uint8).reshape(-1), whole[offset:][:length])


@pytest.fixture
def copy(tiny_mean: Artifact, tmp_path: Path) -> Path:
    """A float32 graph and its weights, to be damaged."""
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(tiny_mean.directory / name, tmp_path / name)
    return tmp_path / "model.onnx"


def test_damaged_files_are_named(copy: Path) -> None:
    whole = copy.read_bytes()
    for content in (whole[:-3], b"<html>no</html>", b"\xff" * 64):
        copy.write_bytes(content)
        with pytest.raises(ModelFileError, match="is not an ONNX file"):
            read_graph(copy)
    copy.write_bytes(whole)
    data = copy.with_name("model.onnx.data")
    data.write_bytes(data.read_bytes()[:5000])
    with pytest.raises(ModelFileError, match="does not fit its weights"):
        read_graph(copy)
    data.unlink()
    with pytest.raises(ModelFileError, match=r"model\.onnx\.data cannot be read: No such file"):
        read_graph(copy)
    copy.unlink()
    with pytest.raises(ModelFileError, match=r"model\.onnx cannot be read"):
        read_graph(copy)


def _saved(path: Path, *, tensors: list[Any] = [], nodes: list[Any] = []) -> Path:  # noqa: B006
    graph = helper.make_graph(nodes, "g", [], [], tensors)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def external(name: str, location: str) -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[1])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "4")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def test_what_ours_do_not_have_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a.data").write_bytes(b"\0" * 8)
    (tmp_path / "b.data").write_bytes(b"\0" * 8)
    one = helper.make_tensor("one", onnx.TensorProto.FLOAT, [1], [1.0])
    split = helper.make_node("Split", ["x"], ["a", "b"])
    listed = helper.make_node("Reshape", ["x"], ["a"], shape=[1, 2])
    for tensors, nodes, says in (
        ([one], [], "tensor one is stored in a way that ours are not"),
        ([external("w", "../w.data")], [], r"lies in '\.\./w\.data', not beside the graph"),
        ([external("a", "a.data"), external("b", "b.data")], [], r"in a\.data and in b\.data"),
        ([], [split], "node Split has 2 outputs"),
        ([], [listed], "attribute shape is no number"),
    ):
        with pytest.raises(NativeEngineError, match=says):
            read_graph(_saved(tmp_path / "model.onnx", tensors=tensors, nodes=nodes))
