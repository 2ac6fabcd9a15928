from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.models.wire_format import BYTES, FIXED32, FIXED64, VARINT, fields, varint


def encoded(value: int) -> bytes:
    """A varint, as protobuf's own description spells it out."""
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


@given(st.integers(0, 2**63 - 1), st.binary(max_size=300))
def test_fields_are_found_where_they_are(number: int, content: bytes) -> None:
    data = encoded(1 << 3 | VARINT) + encoded(number)
    data += encoded(2 << 3 | BYTES) + encoded(len(content)) + content
    data += encoded(3 << 3 | FIXED32) + b"abcd" + encoded(400 << 3 | FIXED64) + b"abcdefgh"
    found = [(n, kind, data[start:stop]) for n, kind, start, stop in fields(data, 0, len(data))]
    assert found == [
        (1, VARINT, encoded(number)),
        (2, BYTES, content),
        (3, FIXED32, b"abcd"),
        (400, FIXED64, b"abcdefgh"),
    ]
    assert varint(encoded(number) + b"\1", 0) == (number, len(encoded(number)))


@pytest.mark.parametrize(
    "data", [b"\x0a\x05abc", b"\x08\xff", b"\x0b", b"\x09abc", b"\x08" + b"\xff" * 11]
)
def test_what_is_cut_or_made_up_is_an_error(data: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        list(fields(data, 0, len(data)))
