"""`POST /v1/embeddings/generate`, as a system that we replace is called by its programs.

Nothing is published about it; this is the shape as far as known. It must never fall back on
another model: `use_fallback` may be sent, and every reply says that it was not done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from cortex_embed.domain import EmbedRequest
from cortex_embed.wire import decoding, native
from cortex_embed.wire.dialect import Answer, Asked
from cortex_embed.wire.encoding import encode, rows_of, strings_of, with_list

if TYPE_CHECKING:
    from cortex_embed.domain import EmbedResult

NAME = native.NAME
LOAD_WAIT = native.LOAD_WAIT
ERROR = native.ERROR
status = native.status
encode_error = native.encode_error


class GenerateRequest(msgspec.Struct, omit_defaults=True):
    """Body of POST /v1/embeddings/generate. Unknown fields are ignored; null means not given."""

    text: Annotated[str | list[str], Meta(description="a string or a list of strings")]
    model: Annotated[str | None, Meta(description="the name of a served model")] = None
    use_fallback: Annotated[
        bool | None, Meta(description="true or false; nothing falls back here")
    ] = None


class GenerateResponse(msgspec.Struct):
    """Body of a 200: `embedding` is the first text's; `embeddings`, all of them, is there where
    `text` was a list. `truncated` is there only when a text was."""

    embedding: list[float]
    model: str
    dimensions: int
    usage: native.NativeUsage
    embeddings: list[list[float]] | None = None
    fallback_used: bool = False
    truncated: list[native.TruncatedText] = []


def decode_request(body: bytes, *, served: str) -> Asked:
    decoder = decoding.decoder_of(GenerateRequest)
    given = decoding.decode(decoder, body, example='{"text": "Hello"}')
    single = isinstance(given.text, str)
    texts = (given.text,) if isinstance(given.text, str) else tuple(given.text)
    return Asked(EmbedRequest(texts=texts, model=given.model, param="text", single=single))


def encode_response(asked: Asked, result: EmbedResult) -> bytes:
    rows = rows_of(result.vectors, "float")
    tail: dict[str, Any] = {
        "model": result.model.id,
        "dimensions": result.vectors.shape[1],
        "usage": {"tokens": result.tokens},
        "fallback_used": False,
    }
    if result.truncations:
        tail["truncated"] = native.listed(result.truncations)
    if asked.request.single:
        return encode({"embedding": rows[0], **tail})
    return with_list({"embedding": rows[0]}, "embeddings", rows, tail)


def encode_request(asked: Asked) -> bytes:
    """Input type, truncation, dimensions and norm have no field here."""
    request = asked.request
    texts = strings_of(request.texts, "the generate format")
    return msgspec.json.encode(
        GenerateRequest(text=texts[0] if request.single else texts, model=request.model)
    )


def decode_response(body: bytes) -> Answer:
    import numpy as np

    try:
        reply = decoding.decoder_of(GenerateResponse).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"not a generate reply: {why}") from None
    rows = [reply.embedding] if reply.embeddings is None else reply.embeddings
    vectors = np.array(rows, dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError("not a generate reply: no embeddings")
    return Answer(
        vectors,
        model=reply.model,
        tokens=reply.usage.tokens,
        truncations=native.truncations_of(reply.truncated),
    )
