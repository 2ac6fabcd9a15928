"""Write an ONNX graph node by node, its weights in a file beside it.

Graphs of one model that differ only in their operators share that file: a tensor of the same
name is stored once. The runtime maps the file into memory instead of copying it. It must
never know what a model is.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from cortex_embed import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import ArrayLike
    from onnx import ModelProto, NodeProto, TensorProto

Shape = list[str | int]
"""Of an output: names for what varies. None where it is not said."""
CONTRIB = "com.microsoft"
IR_VERSION = 10  # onnxruntime 1.23.2 reads up to 11
_ALIGNMENT = 4096  # a page: mapped tensors then start where SIMD likes them
_INLINE_BYTES = 1024


class WeightsFile:
    """Tensors one after the other, each starting at a page."""

    def __init__(self, name: str) -> None:
        self.name = name
        """File name, as the graphs refer to it."""
        self._parts: list[bytes] = []
        self._length = 0
        self._places: dict[str, tuple[int, int, str]] = {}

    def add(self, tensor: TensorProto) -> None:
        """Move the bytes of `tensor` here. A name stored before must have the same bytes."""
        from onnx import TensorProto as Proto
        from onnx import external_data_helper

        raw = tensor.raw_data
        digest = hashlib.sha256(raw).hexdigest()
        if tensor.name not in self._places:
            padding = -self._length % _ALIGNMENT
            self._parts += [b"\0" * padding, raw]
            self._places[tensor.name] = (self._length + padding, len(raw), digest)
            self._length += padding + len(raw)
        offset, length, known = self._places[tensor.name]
        if known != digest:
            raise ValueError(f"two tensors are named {tensor.name!r}")
        external_data_helper.set_external_data(tensor, self.name, offset=offset, length=length)
        tensor.data_location = Proto.EXTERNAL
        tensor.ClearField("raw_data")

    def write(self, directory: Path) -> None:
        with (directory / self.name).open("wb") as file:
            file.writelines(self._parts)


class GraphBuilder:
    """Nodes and initializers under construction. Every method gives the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def constant(self, name: str, values: ArrayLike, dtype: str = "float32") -> str:
        """An initializer called `name`; asking for one again gives the first."""
        import numpy as np
        from onnx import numpy_helper

        if name not in self.initializers:
            array = np.ascontiguousarray(np.asarray(values, dtype=dtype))
            # ascontiguousarray makes a scalar an array of one.
            array = array.reshape(np.shape(values))
            self.initializers[name] = numpy_helper.from_array(array, name)
        return name

    def ints(self, *values: int) -> str:
        """A small int64 list, as shapes, axes and bounds are given."""
        return self.constant("ints." + "_".join(map(str, values)), list(values), "int64")

    def node(
        self, operator: str, *inputs: str, out: str, domain: str = "", **attributes: Any
    ) -> str:
        """Append one node with one output, named `out`."""
        from onnx import helper

        self.nodes.append(
            helper.make_node(operator, inputs, [out], name=out, domain=domain, **attributes)
        )
        return out

    def model(
        self, inputs: Sequence[str], outputs: dict[str, Shape | None], *, opset: int
    ) -> ModelProto:
        """The finished model: int64 inputs [batch, sequence], float32 outputs of these shapes."""
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
                for name in inputs
            ],
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
                for name, shape in outputs.items()
            ],
            list(self.initializers.values()),
        )
        domains = {node.domain for node in self.nodes} | {""}
        versions = [helper.make_opsetid(d, 1 if d else opset) for d in sorted(domains)]
        return helper.make_model(
            graph,
            opset_imports=versions,
            ir_version=IR_VERSION,
            producer_name="cortex-embed",
            producer_version=__version__,
        )


def move_weights(model: ModelProto, file: WeightsFile) -> None:
    """Move every initializer worth it from `model` into `file`."""
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) > _INLINE_BYTES:
            file.add(tensor)
