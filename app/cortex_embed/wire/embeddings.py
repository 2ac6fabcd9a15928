"""What POST /v1/embeddings answers, whoever's words the request used: a list of embeddings.

OpenAI made the shape; Voyage and Jina kept it, so their clients can share the path. It must
never answer in another encoding than the one asked for: openai-node decodes base64
unconditionally.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import orjson

from cortex_embed.errors import TOO_LONG
from cortex_embed.vectors import from_base64, quantize, to_base64
from cortex_embed.wire.decoding import decoder_of
from cortex_embed.wire.dialect import Answer
from cortex_embed.wire.encoding import rows_of, safe, with_list
from cortex_embed.wire.native import TruncatedText, listed, truncations_of

if TYPE_CHECKING:
    from cortex_embed.domain import EmbedRequest, EmbedResult
    from cortex_embed.errors import EmbedError
    from cortex_embed.vectors import Vectors
    from cortex_embed.wire.dialect import Asked


# OpenAI answers ordinary bad input with "code": null.
_ORDINARY = frozenset({"invalid_request", "invalid_text", TOO_LONG})


class Embedding(msgspec.Struct):
    """One vector: numbers, or their little-endian buffer in padded base64.

    Where several types were asked for (Jina's `embedding_type` as a list) an object with a
    key for each.
    """

    embedding: list[float] | str | dict[str, list[float] | str]
    index: int
    object: str = "embedding"


class Usage(msgspec.Struct):
    """Tokens of the model's own tokenizer, special ones included."""

    total_tokens: int
    prompt_tokens: int | None = None


class EmbeddingsResponse(msgspec.Struct):
    """Body of a 200 to POST /v1/embeddings. `truncated` is there only when a text was."""

    data: list[Embedding]
    model: str | None = None
    usage: Usage | None = None
    object: str = "list"
    truncated: list[TruncatedText] = []


class ErrorBody(msgspec.Struct):
    """What went wrong. All four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    """Body of an error. `detail` repeats the message, for Voyage's and Jina's clients."""

    error: ErrorBody
    detail: str


def encode_response(asked: Asked, result: EmbedResult) -> bytes:
    data = [
        {"object": "embedding", "index": index, "embedding": row}
        for index, row in enumerate(_rows(asked, result.vectors))
    ]
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    tail: dict[str, Any] = {"model": result.model.id, "usage": usage}
    if result.truncations:
        tail["truncated"] = listed(result.truncations)
    return with_list({"object": "list"}, "data", data, tail)


def _rows(asked: Asked, vectors: Vectors) -> Any:
    """What stands under `embedding`, for each text."""
    if len(asked.dtypes) > 1:
        columns = [rows_of(vectors, dtype) for dtype in asked.dtypes]
        return [dict(zip(asked.dtypes, row, strict=True)) for row in zip(*columns, strict=True)]
    (dtype,) = asked.dtypes or ("float",)
    if asked.encoding == "base64" and dtype != "base64":
        return map(to_base64, quantize(vectors, dtype))
    return rows_of(vectors, dtype)


def encode_error(error: EmbedError) -> bytes:
    """OpenAI's four keys, and Voyage's `detail` (voyageai refuses a 4xx without it)."""
    message = safe(error.message)
    code = None if error.code in _ORDINARY else error.code
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    if error.status == 401:
        code = "invalid_api_key"
    if error.status == 429:
        kind = code = "rate_limit_exceeded"
    param = safe(error.param) if error.param else None
    body = {"message": message, "type": kind, "param": param, "code": code}
    return orjson.dumps({"error": body, "detail": message})


def cut_or_refuse(request: EmbedRequest, vendor: str) -> bool | None:
    """Truncation where the only question is whether. Raises ValueError for the start's."""
    if request.truncate == "start":
        raise ValueError(f"{vendor} cuts texts at their end only")
    return None if request.truncate is None else request.truncate == "end"


def decode_response(body: bytes) -> Answer:
    """A reply with float32 vectors, as numbers or base64.

    What a base64 buffer holds is not written on it: a reply to a request with `dtypes` is not
    for this. Raises ValueError.
    """
    try:
        reply = decoder_of(EmbeddingsResponse).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"not an embeddings reply: {why}") from None
    ordered = sorted(reply.data, key=lambda item: item.index)
    if [item.index for item in ordered] != list(range(len(ordered))):
        raise ValueError("not an embeddings reply: the indices have gaps")
    return Answer(
        _matrix([item.embedding for item in ordered]),
        model=reply.model,
        tokens=reply.usage.total_tokens if reply.usage else None,
        truncations=truncations_of(reply.truncated),
    )


def _matrix(rows: list[list[float] | str | dict[str, list[float] | str]]) -> Vectors:
    """Rows of any encoding as float32 [n, k]. Raises ValueError unless all are equally wide."""
    import numpy as np

    if not rows:
        raise ValueError("not an embeddings reply: no data")
    return np.stack([_vector(row) for row in rows])


def _vector(row: list[float] | str | dict[str, list[float] | str]) -> Any:
    import numpy as np

    if isinstance(row, dict):
        named = row.get("float", row.get("base64"))
        if named is None:
            raise ValueError('not a reply with vectors: neither "float" nor "base64" is there')
        row = named
    return from_base64(row) if isinstance(row, str) else np.array(row, dtype=np.float32)
