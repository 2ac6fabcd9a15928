"""One ONNX graph of ours as data: its nodes, and its initializers as arrays.

It exists so that another engine than ONNX Runtime can run the files that are there. Tensors in
the weights file are views of it, mapped read-only: nothing is copied. It must never decide what
a graph computes (`encoder_graph` does), nor read a graph that is not ours.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import ModelFileError, NativeEngineError
from cortex_embed.models.wire_format import BYTES, VARINT, fields, varint

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Attribute = float | int | str

# onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto), by message.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT = 1, 5, 12
_NODE_INPUT, _NODE_OUTPUT, _NODE_OPERATOR, _NODE_ATTRIBUTE = 1, 2, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_FLOAT, _ATTRIBUTE_INT, _ATTRIBUTE_STRING = 1, 2, 3, 4
_ATTRIBUTE_TYPE = 20
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_NAME, _TENSOR_RAW = 1, 2, 8, 9
_TENSOR_EXTERNAL, _TENSOR_LOCATION = 13, 14
_KEY, _VALUE = 1, 2
_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64"}
"""TensorProto.DataType; ONNX stores little-endian."""


@dataclass(frozen=True, slots=True)
class Node:
    """One operation. An input that is left out is an empty name."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Attribute]


@dataclass(slots=True)
class Graph:
    """`nodes` by the value that they give; `tensors` by name, read-only; `outputs` are names.

    `mapped` is the weights file that tensors are views of, and `places` where in it: offset and
    length by name.
    """

    nodes: dict[str, Node] = field(default_factory=dict)
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    mapped: mmap.mmap | None = None
    places: dict[str, tuple[int, int]] = field(default_factory=dict)


def read_graph(path: Path) -> Graph:
    """Read the graph file at `path`, and map the weights file beside it.

    Raises ModelFileError for files that are missing or damaged, NativeEngineError for what a
    graph of ours does not have.
    """
    try:
        data = path.read_bytes()
        reader = _Reader(path, data)
        for number, kind, start, stop in fields(data, 0, len(data)):
            if (number, kind) == (_MODEL_GRAPH, BYTES):
                reader.graph(start, stop)
    except OSError as why:
        raise ModelFileError(
            f"{why.filename or path} cannot be read: {why.strerror or why}."
        ) from None
    except (ValueError, LookupError, OverflowError, struct.error):  # empty, cut short, or made up
        raise ModelFileError(f"{path} is not an ONNX file, or does not fit its weights.") from None
    return reader.found


class _Reader:
    def __init__(self, path: Path, data: bytes) -> None:
        self._path = path
        self._data = data
        self._location = ""
        self.found = Graph()

    def graph(self, start: int, stop: int) -> None:
        for number, kind, begin, end in fields(self._data, start, stop):
            if kind != BYTES:
                continue
            if number == _GRAPH_NODE:
                self._node(begin, end)
            elif number == _GRAPH_INITIALIZER:
                self._tensor(begin, end)
            elif number == _GRAPH_OUTPUT:
                parts = fields(self._data, begin, end)
                self.found.outputs += [self._text(b, e) for n, _, b, e in parts if n == 1]

    def _node(self, start: int, stop: int) -> None:
        inputs: list[str] = []
        outputs: list[str] = []
        operator = ""
        attributes: dict[str, Attribute] = {}
        for number, _, begin, end in fields(self._data, start, stop):
            if number == _NODE_INPUT:
                inputs.append(self._text(begin, end))
            elif number == _NODE_OUTPUT:
                outputs.append(self._text(begin, end))
            elif number == _NODE_OPERATOR:
                operator = self._text(begin, end)
            elif number == _NODE_ATTRIBUTE:
                name, value = self._attribute(begin, end)
                attributes[name] = value
        if len(outputs) != 1:
            raise NativeEngineError(f"its node {operator} has {len(outputs)} outputs, not one")
        self.found.nodes[outputs[0]] = Node(operator, tuple(inputs), outputs[0], attributes)

    def _attribute(self, start: int, stop: int) -> tuple[str, Attribute]:
        name = ""
        value: Attribute | None = None
        for number, _, begin, end in fields(self._data, start, stop):
            if number == _ATTRIBUTE_NAME:
                name = self._text(begin, end)
            elif number == _ATTRIBUTE_FLOAT:
                (value,) = struct.unpack("<f", self._data[begin:end])
            elif number == _ATTRIBUTE_INT:
                value = _signed(varint(self._data, begin)[0])
            elif number == _ATTRIBUTE_STRING:
                value = self._text(begin, end)
            elif number != _ATTRIBUTE_TYPE:
                raise NativeEngineError(f"its attribute {name} is no number and no text")
        if value is None:  # protobuf may leave out a zero
            value = 0
        return name, value

    def _tensor(self, start: int, stop: int) -> None:
        import numpy as np

        name, code, is_external = "", 0, False
        shape: list[int] = []
        raw: tuple[int, int] | None = None
        entries: dict[str, str] = {}
        for number, kind, begin, end in fields(self._data, start, stop):
            if number == _TENSOR_DIMS:
                shape += self._dims(kind, begin, end)
            elif number == _TENSOR_TYPE:
                code = varint(self._data, begin)[0]
            elif number == _TENSOR_NAME:
                name = self._text(begin, end)
            elif number == _TENSOR_RAW:
                raw = (begin, end)
            elif number == _TENSOR_LOCATION:
                is_external = varint(self._data, begin)[0] == 1
            elif number == _TENSOR_EXTERNAL:
                key, value = self._entry(begin, end)
                entries[key] = value
        if code not in _DTYPES or (raw is None) != is_external:
            raise NativeEngineError(f"its tensor {name} is stored in a way that ours are not")
        dtype = np.dtype(_DTYPES[code]).newbyteorder("<")
        if raw is None:
            array = self._mapped(name, entries, dtype)
        else:
            # A copy, since bytes of a message lie anywhere, and a float must not.
            array = np.frombuffer(self._data[raw[0] : raw[1]], dtype)
        self.found.tensors[name] = array.reshape(shape)

    def _mapped(self, name: str, entries: dict[str, str], dtype: Any) -> NDArray[Any]:
        import numpy as np

        location = entries.get("location", "")
        if set(location) & set("/\\:\0") or location in {"", ".", ".."}:
            raise NativeEngineError(f"its tensor {name} lies in {location!r}, not beside the graph")
        if self.found.mapped is None:
            with (self._path.parent / location).open("rb") as file:
                self.found.mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._location = location
        if location != self._location:
            raise NativeEngineError(f"its tensors lie in {self._location} and in {location}")
        offset, length = int(entries["offset"]), int(entries["length"])
        if offset % 4 or length % dtype.itemsize:
            raise ValueError
        self.found.places[name] = (offset, length)
        return np.frombuffer(self.found.mapped, dtype, length // dtype.itemsize, offset)

    def _dims(self, kind: int, start: int, stop: int) -> list[int]:
        """One dimension, or several packed into one field: both are valid."""
        if kind == VARINT:
            return [varint(self._data, start)[0]]
        found = []
        while start < stop:
            value, start = varint(self._data, start)
            found.append(value)
        return found

    def _entry(self, start: int, stop: int) -> tuple[str, str]:
        parts = {n: self._text(b, e) for n, _, b, e in fields(self._data, start, stop)}
        return parts.get(_KEY, ""), parts.get(_VALUE, "")

    def _text(self, start: int, stop: int) -> str:
        return self._data[start:stop].decode()


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value
