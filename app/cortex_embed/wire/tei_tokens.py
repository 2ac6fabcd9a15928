"""What text-embeddings-inference says about tokens: /embed_all, /tokenize and /decode.

Source: as for `tei`, as a server speaks it. It must never hold what /embed has a word for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.domain import EmbedRequest
from cortex_embed.wire import decoding
from cortex_embed.wire.encoding import join_slices
from cortex_embed.wire.tei import (
    EXAMPLE,
    INPUT_TYPES,
    PARAMETERS,
    Inputs,
    PromptName,
    TeiCut,
    decoder,
    stated,
    texts_of,
    truncate_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.domain import Token, TokenStates


class TeiEmbedAllBody(TeiCut, kw_only=True):
    """Body of POST /embed_all. Unknown fields are ignored."""

    inputs: Inputs
    parameters: Annotated[TeiCut | None, PARAMETERS] = None


class TeiTokenizeBody(msgspec.Struct):
    """Body of POST /tokenize. Unknown fields are ignored; null means not given."""

    inputs: Annotated[str | list[str], Meta(description="a text, or a list of texts")]
    add_special_tokens: Annotated[bool | None, Meta(description="true or false")] = None
    prompt_name: PromptName = None


class TeiDecodeBody(msgspec.Struct):
    """Body of POST /decode. Unknown fields are ignored; null means not given."""

    ids: Annotated[
        list[decoding.TokenId | list[decoding.TokenId]],
        Meta(
            description="the token ids of a text, or a list of such lists (ids are whole numbers "
            "from 0 to 2147483647)"
        ),
    ]
    skip_special_tokens: Annotated[bool | None, Meta(description="true or false")] = None


class TeiToken(msgspec.Struct):
    """One token. `start` and `stop` count characters; they are null for a special token."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


def decode_embed_all(body: bytes) -> EmbedRequest:
    """A body of POST /embed_all. Raises InvalidRequestError."""
    asked = decoding.decode(decoder(TeiEmbedAllBody), body, example=EXAMPLE)
    texts, single = texts_of(asked.inputs)
    return EmbedRequest(
        texts=texts,
        input_type=INPUT_TYPES[stated(asked, "prompt_name")],
        truncate=truncate_of(asked),
        param="inputs",
        single=single,
    )


def decode_tokenize(body: bytes) -> tuple[EmbedRequest, bool]:
    """A body of POST /tokenize, and whether special tokens are wanted.

    Raises InvalidRequestError.
    """
    asked = decoding.decode(decoder(TeiTokenizeBody), body, example=EXAMPLE)
    texts, single = texts_of(asked.inputs)
    request = EmbedRequest(
        texts, input_type=INPUT_TYPES[asked.prompt_name], param="inputs", single=single
    )
    return request, asked.add_special_tokens is not False


def decode_decode(body: bytes) -> tuple[EmbedRequest, bool]:
    """A body of POST /decode, and whether special tokens are to be left out.

    Raises InvalidRequestError.
    """
    asked = decoding.decode(decoder(TeiDecodeBody), body, example='{"ids": [101, 102]}')
    texts, single = texts_of(asked.ids, "ids")
    return EmbedRequest(texts, param="ids", single=single), asked.skip_special_tokens is not False


def encode_states(states: TokenStates) -> bytes:
    """Body of a 200 to POST /embed_all. Safe to call outside the event loop."""
    import numpy as np

    texts = (join_slices(np.ascontiguousarray(rows)) for rows in states.states)
    return b"[" + b",".join(texts) + b"]"


def encode_tokens(texts: Sequence[Sequence[Token]]) -> bytes:
    """Body of a 200 to POST /tokenize. Safe to call outside the event loop."""
    return b"[" + b",".join(map(join_slices, texts)) + b"]"


def encode_texts(texts: list[str]) -> bytes:
    """Body of a 200 to POST /decode."""
    return orjson.dumps(texts)
