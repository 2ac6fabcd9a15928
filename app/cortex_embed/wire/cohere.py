"""Cohere's embed API, version 1 and 2: two dialects that share their fields and errors.

Source: cohere 7.3.1 (`v2/raw_client.py`, `raw_base_client.py`, `types/`); the packing of
`binary` and `ubinary` is vLLM's, see `vectors.quantize`. It must never answer for an image,
nor leave out a text that was cut: `meta.warnings` names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import uuid4

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import InvalidRequestError, UnsupportedError
from cortex_embed.vectors import from_base64
from cortex_embed.wire import decoding, intents
from cortex_embed.wire.dialect import Answer, Asked, Form
from cortex_embed.wire.encoding import join_slices, rows_of, safe, strings_of
from cortex_embed.wire.intents import COHERE

if TYPE_CHECKING:
    from cortex_embed.domain import EmbedResult
    from cortex_embed.errors import EmbedError

NAME = "cohere"
_FORMS = '"float", "int8", "uint8", "binary", "ubinary" and "base64"'


class CohereContent(msgspec.Struct):
    """A part of an input: `{"type": "text", "text": "…"}`."""

    type: str = "text"
    text: str | None = None


class CohereInput(msgspec.Struct):
    """One input: here, one part that is a text."""

    content: list[CohereContent]


class _CohereRequest(msgspec.Struct, omit_defaults=True, kw_only=True):
    """`texts` or `inputs`, and how. Unknown fields are ignored; null means not given."""

    texts: Annotated[
        list[str] | None, Meta(description='a list of strings, such as ["Hello"] for one text')
    ] = None
    images: Annotated[Any, Meta(description="null: there are no images here")] = None
    input_type: Annotated[
        str | None,
        Meta(
            description=f"{intents.choices(COHERE)}, or left out for no prefix",
            extra_json_schema={"enum": [*COHERE, None]},
        ),
    ] = None
    embedding_types: Annotated[
        list[Form] | None, Meta(description=f"a list of some of {_FORMS}")
    ] = None
    truncate: Annotated[
        str | None,
        Meta(
            description='"NONE", "START" or "END"',
            extra_json_schema={"enum": ["NONE", "START", "END", None]},
        ),
    ] = None
    inputs: Annotated[
        list[CohereInput] | None,
        Meta(description='a list such as [{"content": [{"type": "text", "text": "Hello"}]}]'),
    ] = None
    output_dimension: Annotated[int | None, Meta(description="a whole number from 1 up")] = None
    max_tokens: Annotated[int | None, Meta(description="null: the model's own limit applies")] = (
        None
    )


class CohereV1Request(_CohereRequest):
    """Body of POST /v1/embed. Without a model (Cohere's client may omit it) the default one."""

    model: Annotated[str | None, Meta(description="the name of a served model")] = None


class CohereV2Request(_CohereRequest):
    """Body of POST /v2/embed."""

    model: Annotated[str, Meta(description="the name of a served model")]


class CohereMeta(msgspec.Struct):
    """`billed_units.input_tokens` are tokens of the model's own tokenizer, special ones included.

    `warnings` is there only when a text was truncated.
    """

    api_version: dict[str, str | bool | None] | None = None
    billed_units: dict[str, float | None] | None = None
    warnings: list[str] | None = None


class CohereResponse(msgspec.Struct):
    """Body of a 200: a list of float vectors (v1 by default), or a list for each type."""

    embeddings: list[list[float]] | dict[str, list[list[float] | str] | None]
    response_type: Literal["embeddings_floats", "embeddings_by_type"] | None = None
    id: str | None = None
    texts: list[str] | None = None
    meta: CohereMeta | None = None


class CohereError(msgspec.Struct):
    """Body of an error."""

    message: str


class Embed:
    """One version of Cohere's embed endpoint. Implements `dialect.Dialect`."""

    NAME = NAME
    LOAD_WAIT = 0.0
    ERROR: type = CohereError

    def __init__(
        self, version: Literal[1, 2], request: type[CohereV1Request | CohereV2Request]
    ) -> None:
        self._version = version
        self._request = request

    def decode_request(self, body: bytes, *, served: str) -> Asked:
        example = '{"model": "%s", "texts": ["Hello"]}' % served  # noqa: UP031 - braces
        given = decoding.decode(decoding.decoder_of(self._request), body, example=example)
        if given.model == "":
            raise InvalidRequestError(
                f'model is empty; send "model": "{served}" (GET /v1/models lists the names).',
                param="model",
            )
        if given.images is not None or given.input_type == "image":
            field = "input_type" if given.images is None else "images"
            raise UnsupportedError(f"{field}: there are no images here; send texts.", param=field)
        if given.max_tokens is not None:
            raise UnsupportedError(
                "max_tokens is not supported: the model's own limit applies; leave it out.",
                param="max_tokens",
            )
        texts, param = _texts(given, example)
        return Asked(
            EmbedRequest(
                texts=texts,
                model=given.model,
                input_type=intents.intent(COHERE, given.input_type, "input_type"),
                dimensions=decoding.bounded(given.output_dimension, "output_dimension"),
                truncate=intents.truncate(given.truncate),
                param=param,
                dimensions_param="output_dimension",
            ),
            dtypes=tuple(dict.fromkeys(given.embedding_types or ())),
        )

    def encode_response(self, asked: Asked, result: EmbedResult) -> bytes:
        by_type = bool(asked.dtypes) or self._version == 2
        columns = {
            form: orjson.Fragment(join_slices(rows_of(result.vectors, form)))
            for form in asked.dtypes or ("float",)
        }
        meta: dict[str, Any] = {
            "api_version": {"version": str(self._version)},
            "billed_units": {"input_tokens": result.tokens},
        }
        if result.truncations:
            meta["warnings"] = [
                f"{asked.request.path(cut.index)} was truncated from {cut.tokens} to {cut.used} "
                "tokens"
                for cut in result.truncations
            ]
        return orjson.dumps(
            {
                "response_type": "embeddings_by_type" if by_type else "embeddings_floats",
                "id": str(uuid4()),
                "embeddings": columns if by_type else columns["float"],
                "texts": orjson.Fragment(join_slices(asked.request.texts)),
                "meta": meta,
            }
        )

    def status(self, error: EmbedError) -> int:
        return error.status

    def encode_error(self, error: EmbedError) -> bytes:
        return orjson.dumps({"message": safe(error.message)})

    def encode_request(self, asked: Asked) -> bytes:
        """What Cohere's client posts. The caller's tag for an end user has no field: it stays."""
        request = asked.request
        if not request.normalize or asked.encoding != "float":
            raise ValueError("Cohere's vectors have length 1, and base64 is a type of its own")
        if self._version == 2 and request.model is None:
            raise ValueError("Cohere's version 2 has to be told a model")
        fields: dict[str, Any] = {
            "texts": strings_of(request.texts, "Cohere"),
            "model": request.model,
            "input_type": intents.word_for(COHERE, request.input_type),
            "embedding_types": list(asked.dtypes) or None,
            "truncate": request.truncate and request.truncate.upper(),
            "output_dimension": request.dimensions,
        }
        return msgspec.json.encode({key: val for key, val in fields.items() if val is not None})

    def decode_response(self, body: bytes) -> Answer:
        """A reply that has `float` or `base64` among its types. Raises ValueError."""
        try:
            reply = decoding.decoder_of(CohereResponse).decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
            raise ValueError(f"not a Cohere reply: {why}") from None
        import numpy as np

        given: Any = reply.embeddings
        if isinstance(given, dict):
            given = given.get("float") or given.get("base64")
        if not given:
            raise ValueError('not a Cohere reply with vectors: neither "float" nor "base64"')
        rows = [from_base64(r) if isinstance(r, str) else np.array(r, np.float32) for r in given]
        units = reply.meta.billed_units if reply.meta else None
        tokens = units.get("input_tokens") if units else None
        return Answer(np.stack(rows), tokens=None if tokens is None else int(tokens))


def _texts(given: _CohereRequest, example: str) -> tuple[tuple[str, ...], str]:
    """The texts, and the field that they came in. Raises InvalidRequestError."""
    if given.texts is not None and given.inputs is not None:
        raise InvalidRequestError("Both texts and inputs are given; send one.", param="inputs")
    if given.texts is not None:
        return tuple(given.texts), "texts"
    if given.inputs is None:
        raise InvalidRequestError(f"texts is missing; send JSON such as {example}.", param="texts")
    named = enumerate(given.inputs)
    return tuple(_text(item, f"inputs[{index}]") for index, item in named), "inputs"


def _text(item: CohereInput, path: str) -> str:
    for part in item.content:
        if part.type != "text" or part.text is None:
            raise UnsupportedError(
                f"{path} is no text; there are no images here: send "
                '{"content": [{"type": "text", "text": "…"}]}.',
                param=path,
            )
    if len(item.content) != 1:
        raise InvalidRequestError(
            f"{path}.content has {len(item.content)} parts; a vector is of one text: send one.",
            param=f"{path}.content",
        )
    return item.content[0].text or ""


V1 = Embed(1, CohereV1Request)
V2 = Embed(2, CohereV2Request)
