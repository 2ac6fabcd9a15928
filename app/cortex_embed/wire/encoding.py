"""Numpy rows to JSON, in slices. Shared by every dialect that writes floats.

orjson prints each float32 with the fewest digits that read back to the same float32, so a
JSON reply loses nothing. It must never copy vectors through Python floats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from cortex_embed.vectors import quantize, to_base64

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cortex_embed.vectors import Vectors
    from cortex_embed.wire.dialect import Form

# orjson holds the GIL for a whole call: 18 ms for 2,048 x 384. One slice takes half a
# millisecond, and between slices the event loop gets its turn.
SLICE = 64


def encode(value: Any) -> bytes:
    """`value` as JSON, in one piece. numpy arrays must be C-contiguous."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def join_slices(items: Sequence[Any] | Vectors) -> bytes:
    """`items` as a JSON list, encoded `SLICE` at a time. numpy rows must be C-contiguous."""
    if len(items) <= SLICE:
        return encode(items)
    parts = (encode(items[start : start + SLICE]) for start in range(0, len(items), SLICE))
    # A view leaves the brackets out without a copy: 256 rows of numbers are a megabyte.
    return b"".join((b"[", *_between(memoryview(part)[1:-1] for part in parts), b"]"))


def rows_of(vectors: Vectors, form: Form) -> Any:
    """A row for each of n vectors, as JSON has it in `form`: n strings, or numpy [n, k]."""
    import numpy as np

    if form == "base64":
        return list(map(to_base64, vectors))
    return np.ascontiguousarray(quantize(vectors, form))


def with_list(
    head: dict[str, Any], key: str, items: Sequence[Any] | Vectors, tail: dict[str, Any]
) -> bytes:
    """A JSON object: the pairs of `head`, then `key` with `items` as in `join_slices`, then
    `tail`'s."""
    if len(items) <= SLICE:
        return encode({**head, key: items, **tail})
    before, after = encode(head)[1:-1], encode(tail)[1:-1]
    # One join, so that the list is copied once.
    pieces = (b"{", before, b"," if before else b"", encode(key), b":", join_slices(items))
    return b"".join((*pieces, b"," if after else b"", after, b"}"))


def safe(message: str) -> str:
    """`message` without what UTF-8 cannot hold (a path may carry lone surrogates)."""
    return message.encode("utf-8", "replace").decode("utf-8")


def lists_of(texts: Iterable[str | tuple[int, ...]]) -> list[str | list[int]]:
    """Texts as JSON has them: token ids become lists."""
    return [text if isinstance(text, str) else list(text) for text in texts]


def strings_of(texts: Iterable[str | tuple[int, ...]], vendor: str) -> list[str]:
    """Texts for a format without token ids. Raises ValueError where there are some."""
    strings: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise ValueError(f"{vendor} takes texts, and has no word for token ids")
        strings.append(text)
    return strings


def _between(parts: Iterable[memoryview]) -> Iterator[bytes | memoryview]:
    """`parts` with a comma between any two."""
    for number, part in enumerate(parts):
        if number:
            yield b","
        yield part
