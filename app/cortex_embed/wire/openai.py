"""OpenAI's embeddings API: what most clients speak.

Source: `CreateEmbeddingRequest`, `CreateEmbeddingResponse`, `Model` and `ErrorResponse` of
https://github.com/openai/openai-openapi (f85dbe2). It must never answer in another
`encoding_format` than the one asked for: openai-node decodes base64 unconditionally.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import InvalidRequestError
from cortex_embed.vectors import from_base64, to_base64
from cortex_embed.wire import decoding
from cortex_embed.wire.dialect import Answer, Asked
from cortex_embed.wire.encoding import join_slices, lists_of, safe, with_list

if TYPE_CHECKING:
    from cortex_embed.domain import EmbedResult, ModelSpec, Text
    from cortex_embed.errors import EmbedError
    from cortex_embed.vectors import Vectors

NAME = "openai"
LOAD_WAIT = 0.0
OWNER = "cortex-embed"

TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_KINDS = {str: "a string", int: "a token id", list: "a list of token ids"}


class EmbeddingsRequest(msgspec.Struct, omit_defaults=True):
    """Body of POST /v1/embeddings. Unknown fields are ignored; null means not given."""

    # msgspec cannot tell [str] from [int] from [[int]] in a union; `_texts` does.
    input: Annotated[
        str | list[str | TokenId | list[TokenId]],
        Meta(
            description="a text, a list of texts, a list of token ids, or a list of such lists"
            " (ids are whole numbers from 0 to 2147483647)"
        ),
    ]
    model: Annotated[str | None, Meta(description="the name of a served model")] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Meta(description='"float" or "base64"')
    ] = None
    dimensions: Annotated[int | None, Meta(description="a whole number from 1 up")] = None
    user: Annotated[str | None, Meta(description="a string")] = None


class Embedding(msgspec.Struct):
    """One vector: numbers, or little-endian float32 in padded base64."""

    embedding: list[float] | str
    index: int
    object: str = "embedding"


class Usage(msgspec.Struct):
    """Tokens of the model's own tokenizer, special ones included."""

    total_tokens: int
    prompt_tokens: int | None = None


class EmbeddingsResponse(msgspec.Struct):
    """Body of a 200 to POST /v1/embeddings."""

    data: list[Embedding]
    model: str | None = None
    usage: Usage | None = None
    object: str = "list"


class Model(msgspec.Struct):
    """One served model. `created` is in Unix seconds; OpenAI has no word for the next four.

    `loaded` says whether it is in memory; if not, a request loads it.
    """

    id: str
    created: int
    dimensions: int
    max_tokens: int
    fingerprint: str
    loaded: bool
    owned_by: str = OWNER
    object: str = "model"


class Models(msgspec.Struct):
    """Body of GET /v1/models."""

    data: list[Model]
    object: str = "list"


class ErrorBody(msgspec.Struct):
    """What went wrong. All four keys are always there."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    """Body of an error. `detail` repeats the message, for Voyage's clients."""

    error: ErrorBody
    detail: str


ERROR = ErrorReply
_request = msgspec.json.Decoder(EmbeddingsRequest)
_response = msgspec.json.Decoder(EmbeddingsResponse)


def decode_request(body: bytes, *, served: str) -> Asked:
    example = '{"model": "%s", "input": "Hello"}' % served  # noqa: UP031 - braces
    asked = decoding.decode(_request, body, example=example)
    if not asked.model:
        raise InvalidRequestError(
            f'model is missing; add "model": "{served}" (GET /v1/models lists the names).',
            param="model",
        )
    texts, single = _texts(asked.input)
    return Asked(
        EmbedRequest(
            texts=texts,
            model=asked.model,
            dimensions=decoding.bounded(asked.dimensions),
            param="input",
            single=single,
        ),
        encoding=asked.encoding_format or "float",
        user=asked.user,
    )


def _texts(given: str | list[Any]) -> tuple[tuple[Text, ...], bool]:
    """The texts of `input`, and whether it was one bare text. Raises InvalidRequestError."""
    if isinstance(given, str):
        return (given,), True
    if not given:
        return (), False
    kind = type(given[0])
    if set(map(type, given)) != {kind}:
        odd = next(i for i, item in enumerate(given) if type(item) is not kind)
        raise InvalidRequestError(
            f"input[{odd}] is {_KINDS[type(given[odd])]} but input[0] is {_KINDS[kind]}; "
            "all items must be of one kind.",
            param=f"input[{odd}]",
        )
    if kind is int:
        return (tuple(given),), True
    return tuple(given if kind is str else map(tuple, given)), False


def encode_response(asked: Asked, result: EmbedResult) -> bytes:
    import numpy as np

    rows: Any = np.ascontiguousarray(result.vectors)
    if asked.encoding == "base64":
        rows = map(to_base64, rows)
    data = [
        {"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": result.tokens, "total_tokens": result.tokens}
    tail = {"model": result.model.id, "usage": usage}
    return with_list({"object": "list"}, "data", join_slices(data), tail)


def about(spec: ModelSpec, *, created: int, fingerprint: str, loaded: bool) -> Model:
    """`spec`, created at so many Unix seconds, as a client of OpenAI reads of it."""
    return Model(spec.id, created, spec.dimensions, spec.max_tokens, fingerprint, loaded)


def encode_models(models: list[Model]) -> bytes:
    """Body of GET /v1/models."""
    return msgspec.json.encode(Models(models))


def encode_model(model: Model) -> bytes:
    """Body of GET /v1/models/{id}."""
    return msgspec.json.encode(model)


def status(error: EmbedError) -> int:
    return error.status


def encode_error(error: EmbedError) -> bytes:
    """OpenAI's four keys, and Voyage's `detail` (voyageai refuses a 4xx without it)."""
    message = safe(error.message)
    # OpenAI answers ordinary bad input with "code": null.
    code = None if error.code in {"invalid_request", "invalid_text"} else error.code
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    if error.status == 429:
        kind = code = "rate_limit_exceeded"
    param = safe(error.param) if error.param else None
    body = {"message": message, "type": kind, "param": param, "code": code}
    return orjson.dumps({"error": body, "detail": message})


def encode_request(asked: Asked) -> bytes:
    """What a client posts. Input type, truncation and norm have no field here."""
    request = asked.request
    texts: list[Any] = list(lists_of(request.texts))
    return msgspec.json.encode(
        EmbeddingsRequest(
            input=texts[0] if request.single else texts,
            model=request.model,
            encoding_format=asked.encoding,
            dimensions=request.dimensions,
            user=asked.user,
        )
    )


def decode_response(body: bytes) -> Answer:
    try:
        reply = _response.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"not an OpenAI embeddings reply: {why}") from None
    ordered = sorted(reply.data, key=lambda item: item.index)
    if [item.index for item in ordered] != list(range(len(ordered))):
        raise ValueError("not an OpenAI embeddings reply: the indices have gaps")
    return Answer(
        _matrix([item.embedding for item in ordered]),
        model=reply.model,
        tokens=reply.usage.total_tokens if reply.usage else None,
    )


def _matrix(rows: list[list[float] | str]) -> Vectors:
    """Rows of either encoding as float32 [n, k]. Raises ValueError unless all are equally wide."""
    import numpy as np

    if not rows:
        raise ValueError("not an OpenAI embeddings reply: no data")
    vectors = [
        from_base64(row) if isinstance(row, str) else np.array(row, dtype=np.float32)
        for row in rows
    ]
    return np.stack(vectors)
