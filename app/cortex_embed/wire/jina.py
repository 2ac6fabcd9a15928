"""Jina AI's words for POST /v1/embeddings. The path and the reply are OpenAI's.

Served, they are a part of `openai.EmbeddingsRequest` (one pass reads all vendors' fields);
as a client they stand alone. Source: api.jina.ai/openapi.json, and Jina's `api_schemas`,
which say that several `embedding_type`s come back as an object with a key for each. It must
never answer for what is no text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cortex_embed.errors import ModelNotFoundError, UnsupportedError
from cortex_embed.wire import embeddings, intents
from cortex_embed.wire.encoding import strings_of
from cortex_embed.wire.intents import JINA

if TYPE_CHECKING:
    from cortex_embed.errors import EmbedError
    from cortex_embed.wire.dialect import Asked

NAME = "jina"
ERROR = embeddings.ErrorReply
OWN_FIELDS = ("task", "embedding_type", "late_chunking", "normalized")
"""Which nobody else has on this path."""

Task = Annotated[
    str | None,
    Meta(
        description=f"{intents.choices(JINA)}, or left out for no prefix",
        extra_json_schema={"enum": [*JINA, None]},
    ),
]
LateChunking = Annotated[bool | None, Meta(description="false: each text is embedded by itself")]
Normalized = Annotated[bool | None, Meta(description="true or false")]
EmbeddingType = Literal["float", "base64", "int8", "uint8", "binary", "ubinary"]
EmbeddingTypes = Annotated[
    EmbeddingType | list[EmbeddingType] | None,
    Meta(description='"float", "base64", "int8", "uint8", "binary", "ubinary", or a list of them'),
]


class Item(msgspec.Struct):
    """A text as an object, as Jina's models for images want it."""

    text: str | None = None
    image: Any = None


encode_error = embeddings.encode_error
decode_response = embeddings.decode_response


def text_of(item: Item, path: str) -> str:
    """The text of an item of `input`, which the caller calls `path`. Raises UnsupportedError."""
    if item.text is None or item.image is not None:
        raise UnsupportedError(
            f"{path}: got an object that is no text; there are no images here: send strings, or "
            '{"text": "…"}.',
            param=path,
        )
    return item.text


def status(error: EmbedError) -> int:
    """Jina's word for a model that it does not have is INPUT_MODEL_NOT_FOUND, a 400."""
    return 400 if isinstance(error, ModelNotFoundError) else error.status


def encode_request(asked: Asked) -> bytes:
    """What Jina's API takes. The caller's tag for an end user has no field and stays here."""
    request = asked.request
    if asked.dtypes and asked.encoding == "base64":
        raise ValueError("Jina's base64 is of floats only")
    types: Any = list(asked.dtypes) if len(asked.dtypes) > 1 else next(iter(asked.dtypes), None)
    texts = strings_of(request.texts, "Jina")
    fields: dict[str, Any] = {
        "input": texts[0] if request.single else texts,
        "model": request.model,
        "task": intents.word_for(JINA, request.input_type),
        "dimensions": request.dimensions,
        "truncate": embeddings.cut_or_refuse(request, "Jina"),
        "normalized": None if request.normalize else False,
        "embedding_type": "base64" if asked.encoding == "base64" else types,
    }
    return msgspec.json.encode({key: value for key, value in fields.items() if value is not None})
