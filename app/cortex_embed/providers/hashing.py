"""Vectors from a hash of the text, for `--model hash`: they mean nothing.

It exists to measure and to attack everything around a model: HTTP, JSON, limits. It needs no
files and takes microseconds. It must never be a fallback: who gets it has asked for it by name.

A token is a byte of the text's UTF-8, and its id is the byte's value.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from msgspec.structs import asdict

from cortex_embed.domain import ModelSpec, Pooled, Timings, Token, TokenStates, Truncation
from cortex_embed.errors import TextError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cortex_embed.domain import InputType, Priority, Submitted, Text, Truncate, Vectors

# The query prefix is there so that a stated intent can be seen in the vectors.
SPEC = ModelSpec(
    id="hash",
    repo="cortex-embed/hash",
    revision="1",
    family="hash",
    pooling="mean",
    normalize=True,
    dimensions=384,
    max_tokens=512,
    query_prefix="query: ",
    document_prefix="",
    licence="MIT",
)
PRECISION = "fp32"
FUNCTION = "shake_128"
WARNING = "a hash of the text: vectors mean nothing, for tests and measurements only"


def fingerprint() -> str:
    """The identity of this space, which is no model's."""
    from cortex_embed.models.fingerprint import digest

    return digest({"provider": "hash", "function": FUNCTION} | asdict(SPEC))


def facts() -> dict[str, Any]:
    """What a manifest says of a model, for clients."""
    return asdict(SPEC) | {"precision": PRECISION, "vocab_size": 256, "notes": [WARNING]}


class HashingProvider:
    """Deterministic, on every platform, and the same vector for a text and for its token ids."""

    spec = SPEC

    def begin(self) -> None:
        """Nothing to read."""

    async def load(self) -> None:
        """Say what this is, where nobody can miss it."""
        import logging  # not at the top: every start that names a model reads this module

        logging.getLogger(__name__).warning("--model %s: %s.", SPEC.id, WARNING)

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        priority: Priority,
    ) -> Pooled:
        """See `domain.Provider.embed`. There is no queue, so it is never overloaded."""
        del priority
        used, truncations = self._used(texts, input_type, truncate)
        return Pooled(vectors_of(used), sum(map(len, used)), truncations, Timings())

    def submit(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        told: Callable[[Pooled | Exception], object],
    ) -> Submitted | None:
        """See `domain.Provider.submit`. What tells of it has a `cancel` of its own."""
        import asyncio  # as in `load`

        used, truncations = self._used(texts, input_type, truncate)
        if truncations:
            return None
        lengths = tuple(map(len, used))
        pooled = Pooled(vectors_of(used), sum(lengths), timings=Timings(), lengths=lengths)
        return asyncio.get_running_loop().call_soon(told, pooled)

    async def tokenize(
        self, texts: Sequence[str], *, input_type: InputType | None, special: bool
    ) -> list[list[Token]]:
        """See `domain.Provider.tokenize`. There are no special tokens."""
        del special
        prefix = SPEC.prefix(input_type)
        return [
            [
                Token(byte, character, special=False, start=at, stop=at + 1)
                for at, character in enumerate(prefix + text)
                for byte in character.encode()
            ]
            for text in texts
        ]

    async def detokenize(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        """See `domain.Provider.detokenize`. Bytes that are no UTF-8 become U+FFFD."""
        del skip_special
        return [_bytes(index, one).decode("utf-8", "replace") for index, one in enumerate(ids)]

    async def token_states(
        self, texts: Sequence[Text], *, input_type: InputType | None, truncate: Truncate
    ) -> TokenStates:
        """See `domain.Provider.token_states`. A byte's state is the hash of that byte alone."""
        used, truncations = self._used(texts, input_type, truncate)
        alphabet = vectors_of([bytes([byte]) for byte in range(256)])
        states = tuple(alphabet[list(one)] for one in used)
        return TokenStates(states, sum(map(len, used)), truncations)

    async def close(self) -> None:
        """Nothing to release."""

    def _used(
        self, texts: Sequence[Text], input_type: InputType | None, truncate: Truncate
    ) -> tuple[list[bytes], tuple[Truncation, ...]]:
        """The bytes of each text that count. Raises TextError."""
        prefix = SPEC.prefix(input_type)
        used, truncations = [], []
        limit = SPEC.max_tokens
        for index, text in enumerate(texts):
            whole = _bytes(index, text, prefix)
            if len(whole) > limit:
                if truncate == "none":
                    raise TextError(
                        index,
                        f"the text has {len(whole)} tokens; this model reads at most {limit}. "
                        "Shorten it, or ask for truncation.",
                    )
                truncations.append(Truncation(index, len(whole), limit))
                whole = whole[-limit:] if truncate == "start" else whole[:limit]
            used.append(whole)
        return used, tuple(truncations)


def vectors_of(contents: Iterable[bytes]) -> Vectors:
    """A row of float32 [n, 384] for each: numbers between -1 and 1, never all zero."""
    import numpy as np

    digests = b"".join([hashlib.shake_128(one).digest(SPEC.dimensions) for one in contents])
    rows: Vectors = np.frombuffer(digests, dtype=np.uint8).astype(np.float32)
    rows -= np.float32(127.5)
    rows /= np.float32(127.5)
    return rows.reshape(-1, SPEC.dimensions)


def _bytes(index: int, text: Text | Sequence[int], prefix: str = "") -> bytes:
    """The bytes of text `index`, or of its token ids. Raises TextError."""
    if isinstance(text, str):
        return (prefix + text).encode()
    if prefix:
        raise TextError(
            index,
            "token ids cannot take this model's prefix for the stated input type. Send the text "
            "as a string, or state no input type.",
        )
    for position, token in enumerate(text):
        if not 0 <= token < 256:
            raise TextError(
                index,
                f"token id {token} at position {position} is outside this model's vocabulary of "
                "256. Send the text as a string, or its UTF-8 bytes as ids.",
            )
    return bytes(text)
