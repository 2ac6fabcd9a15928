"""Which files an ONNX graph reads beside itself: weights too large for one file.

It exists so that a model is never copied, fetched or fingerprinted without them. It must never
load a tensor (`graph_tensors` does, of graphs of ours).
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError
from cortex_embed.models.wire_format import BYTES, fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# Field numbers of onnx.proto (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
# By message: the field that is a submessage, and which one.
_CHILDREN = {
    "Model": {7: "Graph", 25: "Function"},
    "Function": {7: "Node", 11: "Attribute"},
    "Graph": {1: "Node", 5: "Tensor", 15: "Sparse"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "Sparse", 23: "Sparse"},
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
}
_KEY, _VALUE = 1, 2


def external_files(graph: Path) -> tuple[str, ...]:
    """Paths relative to the graph's directory, sorted. Raises ModelFileError, OSError."""
    try:
        with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return tuple(sorted(set(_locations(data, 0, len(data), "Model"))))
    except (ValueError, IndexError, RecursionError):  # empty, cut short, or made up
        raise ModelFileError(f"{graph} is not an ONNX file.") from None


def _locations(data: mmap.mmap, start: int, end: int, message: str) -> Iterator[str]:
    children = _CHILDREN[message]
    for field, begin, stop in _messages(data, start, end):
        kind = children.get(field)
        if kind == "Entry":
            entry = {f: data[b:s].decode() for f, b, s in _messages(data, begin, stop)}
            if entry.get(_KEY) == "location":
                yield entry.get(_VALUE, "")
        elif kind is not None:
            yield from _locations(data, begin, stop, kind)


def _messages(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number and extent of every field that holds bytes. Raises ValueError, IndexError."""
    return ((f, b, s) for f, kind, b, s in fields(data, start, end) if kind == BYTES)
