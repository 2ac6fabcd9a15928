"""Protobuf's wire format, as far as an ONNX file needs it: fields, and where they are.

It exists since the onnx package is no part of a user's program. It must never know what a
field means (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import mmap
    from collections.abc import Iterator

    Buffer = bytes | mmap.mmap

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Number, kind and extent of every field. Raises ValueError, IndexError for what is none."""
    while start < end:
        tag, start = varint(data, start)
        kind = tag & 7
        if kind == BYTES:
            length, start = varint(data, start)
            stop = start + length
        elif kind == VARINT:
            _, stop = varint(data, start)
        elif kind in (FIXED64, FIXED32):
            stop = start + (8 if kind == FIXED64 else 4)
        else:
            raise ValueError
        if stop > end:
            raise ValueError
        yield tag >> 3, kind, start, stop
        start = stop


def varint(data: Buffer, start: int) -> tuple[int, int]:
    """The unsigned number at `start`, and where it ends. Raises ValueError, IndexError."""
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
