"""Whatever lies in a model's directory, the native engine runs it in bounds or says why not.

Its files may be damaged, or made by someone who means harm; and C reads memory by what they say.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from cortex_embed.errors import EngineError, ModelFileError, NativeEngineError
from cortex_embed.models import encoder_graph
from cortex_embed.providers.native_engine import NativeEngine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact

    Change = Callable[[onnx.ModelProto], None]

PRECISIONS = ["fp32", "int8"]
REFUSALS = (NativeEngineError, ModelFileError)
WIDTH = 64


@pytest.fixture
def place(kernel_mean: Artifact, tmp_path: Path) -> Path:
    """A directory with the weights, for graphs beside them."""
    for name in ("model.onnx.data", "model.int8.onnx.data"):
        (tmp_path / name).symlink_to(kernel_mean.directory / name)
    return tmp_path


def graph_of(artifact: Artifact, precision: str) -> onnx.ModelProto:
    return onnx.load(str(artifact.graph_for(precision)), load_external_data=False)


def load(place: Path, model: onnx.ModelProto | bytes, *, in_int16: bool = False) -> NativeEngine:
    path = place / "changed.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return NativeEngine(path, dimensions=WIDTH, in_int16=in_int16)


def run_at_the_edges(engine: NativeEngine) -> None:
    """The longest and the shortest text, of the first and the last id."""
    if engine._vocabulary:
        ids = np.full(engine._positions, engine._vocabulary - 1, dtype=np.int64)
        assert engine.run([ids, ids[:1] * 0, ids[:17]]).shape == (3, WIDTH)
    for outside in (-1, engine._vocabulary, 2**62):
        with pytest.raises(EngineError, match="Token ids"):
            engine.run([np.array([outside], dtype=np.int64)])
    with pytest.raises(EngineError, match="Texts of"):
        engine.run([np.zeros(engine._positions + 1, dtype=np.int64)])


def tensor(model: onnx.ModelProto, name: str) -> onnx.TensorProto:
    return next(one for one in model.graph.initializer if one.name == name)


def resize(one: onnx.TensorProto, *shape: int) -> None:
    """Another shape; and where its bytes lie in the weights file, as many as that takes."""
    del one.dims[:]
    one.dims.extend(shape)
    size = helper.tensor_dtype_to_np_dtype(one.data_type).itemsize
    for entry in one.external_data:
        if entry.key == "length":
            entry.value = str(size * int(np.prod(shape)))
    if one.raw_data:
        one.raw_data = (one.raw_data * 100)[: size * int(np.prod(shape))]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_fewer_words_and_positions_are_the_engines_limits(
    precision: str, kernel_mean: Artifact, place: Path
) -> None:
    model = graph_of(kernel_mean, precision)
    if precision == "int8":
        resize(tensor(model, "words.q"), 10, WIDTH)
        resize(tensor(model, "words.scale"), 10, 1)
    else:
        resize(tensor(model, "words"), 10, WIDTH)
    resize(tensor(model, "positions"), 20, WIDTH)
    engine = load(place, model)
    assert (engine._vocabulary, engine._positions) == (10, 20)
    run_at_the_edges(engine)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_tensor_may_have_another_shape(
    precision: str, kernel_mean: Artifact, place: Path
) -> None:
    """Each, one row or one column less, and in one dimension more or fewer."""
    names = [one.name for one in graph_of(kernel_mean, precision).graph.initializer]
    refused = 0
    for name in names:
        shape = tuple(tensor(graph_of(kernel_mean, precision), name).dims)
        size = int(np.prod(shape))
        if size < WIDTH:
            continue
        less = [(shape[0] - 1, *shape[1:]), (*shape[:-1], shape[-1] - 1)]
        if name in {"words", "positions"}:  # of any number of rows
            del less[0]
        other = [] if name == "words.scale" else [(*shape, 1), (1, *shape), (size // 2, 2)]
        for changed in less + other:
            model = graph_of(kernel_mean, precision)
            resize(tensor(model, name), *changed)
            with pytest.raises(REFUSALS):
                load(place, model)
            refused += 1
    assert refused > 60


def _step(value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        tensor(model, "0.mixed_rows.step").raw_data = struct.pack("<f", value)

    return change


def _heads(value: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for one in node.attribute:
                if one.name in {"q_num_heads", "kv_num_heads", "num_heads"}:
                    one.i = value

    return change


def _endless_heads(model: onnx.ModelProto) -> None:
    for node in model.graph.node:
        for one in node.attribute:
            if one.name in {"q_num_heads", "kv_num_heads", "num_heads"}:
                one.CopyFrom(helper.make_attribute(one.name, float("inf")))


def _epsilon(value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for one in node.attribute:
                if one.name == "epsilon":
                    one.f = value

    return change


def _zero(kind: str, value: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        one = next(t for t in model.graph.initializer if t.name == "zero_128")
        one.CopyFrom(numpy_helper.from_array(np.array(value, dtype=kind), one.name))

    return change


def _huge(*dims: int) -> Change:
    def change(model: onnx.ModelProto) -> None:
        del tensor(model, "positions").dims[:]
        tensor(model, "positions").dims.extend(dims)

    return change


def _place(key: str, value: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        for entry in tensor(model, "0.up.weight.q").external_data:
            if entry.key == key:
                entry.value = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_step(0.0), "step 0.mixed_rows.step is 0.0"),
        (_step(-1.0), "step 0.mixed_rows.step is -1.0"),
        (_step(float("nan")), "0.output.weight.q reads is nan"),
        (_step(float("inf")), "0.output.weight.q reads is inf"),
        (_step(1e-39), "0.output.weight.q reads is 1.0.*e-39"),
        (_heads(0), "its 0 heads do not share 64 channels"),
        (_heads(-2), "its -2 heads"),
        (_heads(3), "its 3 heads"),
        (_heads(2**32 + 2), "its 4294967298 heads"),
        (_heads(1), None),
        (_heads(4), "do not run a model of its shape"),
        (_endless_heads, "not built as ours are"),
        (_epsilon(float("nan")), "not all of one kind|epsilon is nan"),
        (_epsilon(0.0), "epsilon is 0.0"),
        (_epsilon(-1.0), "epsilon is -1.0"),
        (_zero("int32", 300), "zero points that ours do not have"),
        (_zero("int8", -1), "zero points that ours do not have"),
        (_zero("uint8", 255), None),
        (_huge(2**62, 64), "does not fit its weights"),
        (_huge(-1, 64), "does not fit its weights"),
        (_huge(2**31, 2**31), "does not fit its weights"),
        (_place("offset", "-64"), "does not fit its weights"),
        (_place("offset", str(2**70)), "does not fit its weights"),
        (_place("length", "-1"), "does not fit its weights"),
        (_place("length", str(2**70)), "does not fit its weights"),
    ],
)
def test_numbers_are_judged_before_c_sees_them(
    change: Change, says: str | None, kernel_mean: Artifact, place: Path
) -> None:
    """Without words: it is another encoder, but one that stays within its memory."""
    model = graph_of(kernel_mean, "int8")
    change(model)
    if says is None:
        run_at_the_edges(load(place, model))
        return
    with pytest.raises(REFUSALS, match=says):
        load(place, model)


def test_a_number_of_three_bytes_is_none(kernel_mean: Artifact, place: Path) -> None:
    whole = graph_of(kernel_mean, "int8").SerializeToString()
    epsilon = b"\x15" + struct.pack("<f", 1e-12)  # field 2 of an attribute, in four bytes
    assert epsilon in whole
    with pytest.raises(ModelFileError, match="is not an ONNX file"):
        load(place, whole.replace(epsilon, b"\x12\x03abc"))


@pytest.mark.parametrize("limit", ["_MOST_WIDTH", "_MOST_POSITIONS"])
def test_sizes_have_limits(
    limit: str, kernel_mean: Artifact, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = graph_of(kernel_mean, "int8")
    monkeypatch.setattr(encoder_graph, limit, 63)
    with pytest.raises(NativeEngineError, match=r"the kernels take (1 to )?63"):
        load(place, model)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_bytes_of_chance_in_the_graph(precision: str, kernel_mean: Artifact, place: Path) -> None:
    """Some hundred graphs with bytes changed, left out or put in: none ends but by a reason."""
    whole = graph_of(kernel_mean, precision).SerializeToString()
    draw = np.random.RandomState(11)
    ran = refused = 0
    for _ in range(400):
        data = bytearray(whole)
        for at in draw.randint(0, len(data) - 8, draw.randint(1, 4)):
            kind = draw.randint(4)
            if kind == 0:
                del data[at : at + draw.randint(1, 8)]
            elif kind == 1:
                data[at:at] = draw.bytes(draw.randint(1, 8))
            else:
                data[at] = draw.randint(256)
        try:
            engine = load(place, bytes(data))
        except REFUSALS:
            refused += 1
            continue
        run_at_the_edges(engine)
        ran += 1
    assert ran > 20
    assert refused > 100


@pytest.mark.parametrize("precision", PRECISIONS)
def test_weights_of_chance(precision: str, kernel_mean: Artifact, tmp_path: Path) -> None:
    """NaN, infinities and all bytes: the numbers are wrong then, and nothing else."""
    name = kernel_mean.graph_for(precision).name + ".data"
    size = (kernel_mean.directory / name).stat().st_size
    draw = np.random.RandomState(5)
    for content in (draw.bytes(size), b"\xff" * size, b"\0" * size, b"\x80\x7f\0\0" * (size // 4)):
        (tmp_path / name).write_bytes(content)
        run_at_the_edges(load(tmp_path, graph_of(kernel_mean, precision)))
        (tmp_path / name).unlink()


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, 3e38])
def test_int16_is_not_made_of_what_is_not_finite(
    odd: float, kernel_mean: Artifact, tmp_path: Path
) -> None:
    model = graph_of(kernel_mean, "fp32")
    weight = tensor(model, "1.down.weight")
    at = next(int(e.value) for e in weight.external_data if e.key == "offset")
    content = bytearray((kernel_mean.directory / "model.onnx.data").read_bytes())
    content[at : at + 40] = np.full(10, odd, dtype=np.float32).tobytes()
    (tmp_path / "model.onnx.data").write_bytes(content)
    with pytest.raises(NativeEngineError, match=r"its 1\.down\.weight is not finite"):
        load(tmp_path, model, in_int16=True)
    content[at : at + 40] = np.full(10, 1e18, dtype=np.float32).tobytes()
    (tmp_path / "model.onnx.data").write_bytes(content)
    run_at_the_edges(load(tmp_path, model, in_int16=True))


def test_int16_of_nothing(kernel_mean: Artifact, tmp_path: Path) -> None:
    size = (kernel_mean.directory / "model.onnx.data").stat().st_size
    (tmp_path / "model.onnx.data").write_bytes(b"\0" * size)
    run_at_the_edges(load(tmp_path, graph_of(kernel_mean, "fp32"), in_int16=True))
