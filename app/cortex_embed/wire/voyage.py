"""Voyage AI's words for POST /v1/embeddings. The path and the reply are OpenAI's.

Served, they are a part of `openai.EmbeddingsRequest` (one pass reads all vendors' fields);
as a client they stand alone. Source: voyageai 0.5.0 and docs.voyageai.com/reference. It must
never say anything in a field that Voyage does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from cortex_embed.errors import ModelNotFoundError
from cortex_embed.wire import embeddings, intents
from cortex_embed.wire.encoding import strings_of
from cortex_embed.wire.intents import VOYAGE

if TYPE_CHECKING:
    from cortex_embed.errors import EmbedError
    from cortex_embed.wire.dialect import Asked

NAME = "voyage"
ERROR = embeddings.ErrorReply
OWN_FIELDS = ("truncation", "output_dtype", "output_dimension")
"""Which nobody else has on this path."""

InputType = Annotated[
    str | None,
    Meta(
        description=f"{intents.choices(VOYAGE)}, or left out for no prefix",
        extra_json_schema={"enum": [*VOYAGE, None]},
    ),
]
Truncation = Annotated[bool | None, Meta(description="true or false")]
OutputDtype = Annotated[
    Literal["float", "int8", "uint8", "binary", "ubinary"] | None,
    Meta(description='"float", "int8", "uint8", "binary" or "ubinary"'),
]
OutputDimension = Annotated[int | None, Meta(description="a whole number from 1 up")]

encode_error = embeddings.encode_error
decode_response = embeddings.decode_response


def status(error: EmbedError) -> int:
    """voyageai raises its InvalidRequestError for a 400; a 404 would be an unknown APIError."""
    return 400 if isinstance(error, ModelNotFoundError) else error.status


def encode_request(asked: Asked) -> bytes:
    """What voyageai posts. The caller's tag for an end user has no field and stays here."""
    request = asked.request
    if not request.normalize:
        raise ValueError("Voyage's vectors always have length 1")
    if len(asked.dtypes) > 1:
        raise ValueError("Voyage answers in one type at a time")
    texts = strings_of(request.texts, "Voyage")
    fields: dict[str, Any] = {
        "input": texts[0] if request.single else texts,
        "model": request.model,
        "input_type": intents.word_for(VOYAGE, request.input_type),
        "truncation": embeddings.cut_or_refuse(request, "Voyage"),
        "output_dimension": request.dimensions,
        "output_dtype": asked.dtypes[0] if asked.dtypes else None,
        "encoding_format": "base64" if asked.encoding == "base64" else None,
    }
    return msgspec.json.encode({key: value for key, value in fields.items() if value is not None})
