"""The encoder read back from its graph, against the weights that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bert_source import read_config, read_weights
from bert_weights import encoder as arranged
from cortex_embed.errors import NativeEngineError
from cortex_embed.models.encoder_graph import read_encoder
from export_onnx import export
from make_families import TINY, make_family
from make_tiny import kernel_spec, make_kernel_sized

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.models.artifact import Artifact
    from make_tiny import TinyPooling

PARTS = ("query", "key", "value", "output", "up", "down")


@pytest.mark.parametrize("compatible", ["", ".compatible"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_float32_gives_back_what_was_exported(
    pooling: TinyPooling, compatible: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(f"kernel_{pooling}")
    source = make_kernel_sized(tmp_path / "source", pooling)
    config = read_config(source / "config.json", kernel_spec(pooling))
    expected = arranged(read_weights(source / "model.safetensors"), config)
    found = read_encoder(artifact.directory / f"model{compatible}.onnx")
    assert (found.pooling, found.heads, found.hidden) == (pooling, 2, 64)
    assert (found.intermediate, found.is_quantized, len(found.layers)) == (128, False, 2)
    assert found.epsilon == np.float32(1e-12)
    np.testing.assert_array_equal(found.words, expected.words)
    np.testing.assert_array_equal(found.positions, expected.positions)
    np.testing.assert_array_equal(found.norm.gamma, expected.norm.gamma)
    for layer, given in zip(found.layers, expected.layers, strict=True):
        for part, linear in zip(PARTS, layer.linears, strict=True):
            np.testing.assert_array_equal(linear.weight, given.linears[part].weight)
            np.testing.assert_array_equal(linear.bias, given.linears[part].bias)
        np.testing.assert_array_equal(layer.attention_norm.beta, given.attention_norm.beta)
        np.testing.assert_array_equal(layer.output_norm.gamma, given.output_norm.gamma)


@pytest.mark.parametrize("compatible", ["", ".compatible"])
@pytest.mark.parametrize(
    "fixture",
    ["kernel_cls", "kernel_mean", pytest.param("minilm_artifact", marks=pytest.mark.real)],
)
def test_int8_has_every_tensor_of_the_graph_in_its_place(
    fixture: str, compatible: str, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    path = artifact.directory / f"model.int8{compatible}.onnx"
    found, graph = read_encoder(path), onnx.load(str(path)).graph
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    inputs = ("embedding_norm", *(f"{i}.output_norm" for i in range(len(found.layers) - 1)))
    assert found.is_quantized
    np.testing.assert_array_equal(found.words, known["words.q"])
    np.testing.assert_array_equal(found.word_scale, known["words.scale"][:, 0])
    np.testing.assert_array_equal(found.norm.smoothing, known["embedding_norm.smoothing"])
    for index, (layer, read) in enumerate(zip(found.layers, inputs, strict=True)):
        for part, linear in zip(PARTS, layer.linears, strict=True):
            assert linear.name == f"{index}.{part}.weight.q"
            np.testing.assert_array_equal(linear.weight, known[linear.name])
            np.testing.assert_array_equal(linear.scale, known[f"{index}.{part}.weight.scale"])
            np.testing.assert_array_equal(linear.bias, known[f"{index}.{part}.bias.q"])
        steps = [
            known[f"{x}.step"] for x in (read, f"{index}.mixed_rows", f"{index}.attention_norm")
        ]
        query, _, _, output, up, down = layer.linears
        assert [query.step, output.step, up.step, down.step] == [*steps, 0]
        assert {linear.zero for linear in layer.linears[:5]} == {128}
        assert down.zero == 32
        smoothing = known[f"{index}.attention_norm.smoothing"]
        np.testing.assert_array_equal(layer.attention_norm.smoothing, smoothing)
    assert [layer.output_norm.smoothing is None for layer in found.layers[-2:]] == [False, True]


@pytest.mark.parametrize("name", TINY)
def test_other_families_are_refused(name: str, tmp_path: Path) -> None:
    out = tmp_path / "artifact"
    source = make_family(tmp_path / "source", name)
    artifact = export(source, TINY[name], out, precisions=["fp32"])
    with pytest.raises(NativeEngineError, match=r"where ours has|attention"):
        read_encoder(artifact.directory / "model.onnx")


def _tokens(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "1.output_norm"


def _other_norm(model: onnx.ModelProto) -> None:
    _node(model, "0.output_norm").attribute[1].f = 1e-5


def _tanh_gelu(model: onnx.ModelProto) -> None:
    _node(model, "1.gelu").attribute[0].s = b"tanh"


def _other_activation(model: onnx.ModelProto) -> None:
    node = _node(model, "1.gelu")
    node.op_type = "Relu"
    del node.attribute[:]


def _causal(model: onnx.ModelProto) -> None:
    _node(model, "0.mixed").attribute.append(onnx.helper.make_attribute("is_causal", 1))


def _biased_scores(model: onnx.ModelProto) -> None:
    _node(model, "0.mixed").input[3] = "positions"


def _other_keys(model: onnx.ModelProto) -> None:
    _node(model, "1.key").input[0] = "0.attention_norm.codes"


def _other_residual(model: onnx.ModelProto) -> None:
    _node(model, "1.attention_sum").input[1] = "embedding_norm.residual"


def _fewer_inputs(model: onnx.ModelProto) -> None:
    del _node(model, "0.up").input[6:]


def _circle(model: onnx.ModelProto) -> None:
    _node(model, "0.output_sum").input[0] = "1.down"


def _other_peak(model: onnx.ModelProto) -> None:
    _node(model, "0.gelu.steps").input[1] = "one"


def _other_zero(model: onnx.ModelProto) -> None:
    _node(model, "0.gelu.zeros").input[0] = "zero_128"


def _per_row_attention(model: onnx.ModelProto) -> None:
    step = next(one for one in model.graph.initializer if one.name == "0.mixed_rows.step")
    step.raw_data = b"\0\0\0\0"


def _node(model: onnx.ModelProto, output: str) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.output[0] == output)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_tokens, "LayerNormalization gives '1.output_norm', where ours has Div"),
        (_other_norm, "layers are not all of one kind"),
        (_tanh_gelu, "1.gelu .Gelu. has the attributes .*tanh"),
        (_other_activation, "Relu gives '1.gelu', where ours has Gelu"),
        (_causal, "0.mixed .Attention. has the attributes .*is_causal"),
        (_biased_scores, "attention is not plain self-attention"),
        (_other_keys, "are read by another scale"),
        (_other_residual, "residual embedding_norm.residual is not of 0.output_norm"),
        (_fewer_inputs, "0.up has 6 inputs, not 7"),
        (_circle, "residual|circle"),
        (_other_peak, "not scaled by the peak of their row"),
        (_other_zero, "not scaled by the peak of their row"),
        (_per_row_attention, "step 0.mixed_rows.step is 0.0"),
    ],
)
def test_whatever_differs_is_a_reason(
    change: Callable[[onnx.ModelProto], None], says: str, kernel_mean: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "model.int8.onnx.data").symlink_to(kernel_mean.directory / "model.int8.onnx.data")
    model = onnx.load(str(kernel_mean.graph_for("int8")), load_external_data=False)
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    assert read_encoder(path).is_quantized
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(NativeEngineError, match=says):
        read_encoder(path)
