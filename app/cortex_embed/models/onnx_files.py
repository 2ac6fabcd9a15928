"""Which files an ONNX graph reads beside itself: weights too large for one file.

It exists so that a model is never copied, fetched or fingerprinted without them. It reads
protobuf's wire format directly, since the onnx package is no part of a user's program; it must
never load a tensor.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError

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
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(graph: Path) -> tuple[str, ...]:
    """Paths relative to the graph's directory, sorted. Raises ModelFileError, OSError."""
    try:
        with graph.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return tuple(sorted(set(_locations(data, 0, len(data), "Model"))))
    except (ValueError, IndexError, RecursionError):  # empty, cut short, or made up
        raise ModelFileError(f"{graph} is not an ONNX file.") from None


def _locations(data: mmap.mmap, start: int, end: int, message: str) -> Iterator[str]:
    children = _CHILDREN[message]
    for field, begin, stop in _fields(data, start, end):
        kind = children.get(field)
        if kind == "Entry":
            entry = {f: data[b:s].decode() for f, b, s in _fields(data, begin, stop)}
            if entry.get(_KEY) == "location":
                yield entry.get(_VALUE, "")
        elif kind is not None:
            yield from _locations(data, begin, stop, kind)


def _fields(data: mmap.mmap, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number and extent of every field that holds bytes. Raises ValueError, IndexError."""
    while start < end:
        tag, start = _varint(data, start)
        kind = tag & 7
        if kind == _BYTES:
            length, start = _varint(data, start)
            if start + length > end:
                raise ValueError
            yield tag >> 3, start, start + length
            start += length
        elif kind == _VARINT:
            _, start = _varint(data, start)
        elif kind in (_FIXED64, _FIXED32):
            start += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError


def _varint(data: mmap.mmap, start: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
        if shift > 63:
            raise ValueError
