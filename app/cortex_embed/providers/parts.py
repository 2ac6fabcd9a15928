"""A large request in parts: where it is cut, and how the parts become one answer.

It exists so that `local` can compute the first texts while the last ones are still tokenized. It
must never look into a text, or change what a caller gets: parts are not to be seen from outside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from cortex_embed.domain import Pooled, Timings, Truncation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.domain import Text
    from cortex_embed.providers.lanes import Batched
    from cortex_embed.providers.tokenizer import Encoded

SomeText = TypeVar("SomeText", bound="Text")

SLICE_CHARS = 50_000
"""Texts tokenized in one go (ten milliseconds or two): a larger request is tokenized slice by
slice, so that other callers' texts get their turn between, and computing begins with the first."""


def pooled(
    encoded: Sequence[Encoded], tokens: int, batched: Batched, tokenize_seconds: float
) -> Pooled:
    """The answer for `encoded`, in its order, of `tokens` in all."""
    return Pooled(
        vectors=batched.vectors,
        tokens=tokens,
        truncations=truncations(encoded),
        timings=Timings(
            tokenize=tokenize_seconds,
            queue=batched.queue_seconds,
            engine=batched.engine_seconds,
        ),
        read_as=next((e.read_as for e in encoded if e.read_as), None),
    )


def joined(parts: Sequence[Batched]) -> Batched:
    """Parts of one request: it waited for the first, and all were computed for it."""
    import numpy as np

    from cortex_embed.providers.lanes import Batched

    return Batched(
        np.concatenate([part.vectors for part in parts]),
        parts[0].queue_seconds,
        sum(part.engine_seconds for part in parts),
    )


def truncations(encoded: Sequence[Encoded]) -> tuple[Truncation, ...]:
    """Of the texts that were cut."""
    return tuple(
        Truncation(index=i, tokens=e.tokens, used=len(e.ids))
        for i, e in enumerate(encoded)
        if e.tokens > len(e.ids)
    )


def size(texts: Sequence[Text]) -> int:
    """In characters; a token id stands for some four."""
    return sum(len(text) * (1 if isinstance(text, str) else 4) for text in texts)


def slices(texts: Sequence[SomeText]) -> list[Sequence[SomeText]]:
    """`texts` cut into runs of about SLICE_CHARS, of one text at the least."""
    found: list[Sequence[SomeText]] = []
    start = chars = 0
    for end, text in enumerate(texts):
        more = size((text,))
        if end > start and chars + more > SLICE_CHARS:
            found.append(texts[start:end])
            start, chars = end, 0
        chars += more
    found.append(texts[start:])
    return found
