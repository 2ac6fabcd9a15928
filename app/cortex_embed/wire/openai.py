"""OpenAI's embeddings API: what most clients speak. Voyage's and Jina's share its path.

Source: `CreateEmbeddingRequest`, `CreateEmbeddingResponse`, `Model` and `ErrorResponse` of
https://github.com/openai/openai-openapi (f85dbe2); the other vendors' fields are explained in
`voyage` and `jina`. It must never choose between two fields that contradict each other.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import InvalidRequestError, UnsupportedError
from cortex_embed.wire import decoding, embeddings, intents, jina, voyage
from cortex_embed.wire.dialect import Asked
from cortex_embed.wire.encoding import lists_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.domain import InputType, ModelSpec, Text, Truncate
    from cortex_embed.errors import EmbedError
    from cortex_embed.wire.dialect import Encoding, ErrorDialect, Form

T = TypeVar("T")

NAME = "openai"
LOAD_WAIT = 0.0
OWNER = "cortex-embed"

_KINDS = {str: "a string", int: "a token id", list: "a list of token ids"}
_YES_NO: dict[bool | None, Truncate | None] = {None: None, True: "end", False: "none"}


class EmbeddingsRequest(msgspec.Struct, omit_defaults=True):
    """Body of POST /v1/embeddings: OpenAI's fields, then Voyage's, then Jina's.

    Unknown fields are ignored; null means not given.
    """

    # msgspec cannot tell [str] from [int] from [[int]] in a union; `_texts` does.
    input: Annotated[
        str | jina.Item | list[str | decoding.TokenId | list[decoding.TokenId] | jina.Item],
        str | list[str | decoding.TokenId | list[decoding.TokenId]],
        Meta(
            description="a text, a list of texts, a list of token ids, or a list of such lists"
            ' (ids are whole numbers from 0 to 2147483647); a text may be {"text": "…"}'
        ),
    ]
    model: Annotated[str | None, Meta(description="the name of a served model")] = None
    encoding_format: Annotated[
        Literal["float", "base64"] | None, Meta(description='"float" or "base64"')
    ] = None
    dimensions: Annotated[int | None, Meta(description="a whole number from 1 up")] = None
    user: Annotated[str | None, Meta(description="a string")] = None
    input_type: voyage.InputType = None
    truncation: voyage.Truncation = None
    output_dtype: voyage.OutputDtype = None
    output_dimension: voyage.OutputDimension = None
    task: jina.Task = None
    embedding_type: jina.EmbeddingTypes = None
    late_chunking: jina.LateChunking = None
    normalized: jina.Normalized = None
    # Jina's true and false, and NVIDIA NIM's words (langchain-nvidia-ai-endpoints sends them).
    truncate: Annotated[
        bool | str | None, Meta(description='true, false, "NONE", "START" or "END"')
    ] = None


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


ERROR = embeddings.ErrorReply
_request = msgspec.json.Decoder(EmbeddingsRequest)
# One call for all of a vendor's fields: most requests have none of them.
_VENDORS: tuple[tuple[ErrorDialect, Callable[[EmbeddingsRequest], object], object], ...] = tuple(
    (vendor, attrgetter(*vendor.OWN_FIELDS), (None,) * len(vendor.OWN_FIELDS))
    for vendor in (voyage, jina)
)

encode_response = embeddings.encode_response
decode_response = embeddings.decode_response
encode_error = embeddings.encode_error


def decode_request(body: bytes, *, served: str) -> Asked:
    example = '{"model": "%s", "input": "Hello"}' % served  # noqa: UP031 - braces
    asked = decoding.decode(_request, body, example=example)
    if not asked.model:
        raise InvalidRequestError(
            f'model is missing; add "model": "{served}" (GET /v1/models lists the names).',
            param="model",
        )
    if asked.late_chunking:
        raise UnsupportedError(
            "late_chunking: got true, which is not supported: every text is embedded by itself; "
            "send false, or leave it out.",
            param="late_chunking",
        )
    texts, single = _texts(asked.input)
    dtypes, encoding = _forms(asked)
    shorter = _agreed(
        asked,
        dimensions=decoding.bounded(asked.dimensions),
        output_dimension=decoding.bounded(asked.output_dimension, "output_dimension"),
    )
    return Asked(
        EmbedRequest(
            texts=texts,
            model=asked.model,
            input_type=_intent(asked),
            dimensions=shorter,
            truncate=_truncate(asked),
            normalize=asked.normalized is not False,
            param="input",
            dimensions_param="dimensions" if asked.output_dimension is None else "output_dimension",
            single=single,
        ),
        encoding=encoding,
        dtypes=dtypes,
        user=asked.user,
        dialect=_vendor(asked),
    )


def _vendor(asked: EmbeddingsRequest) -> ErrorDialect | None:
    """Whose words those are that nobody else has."""
    for vendor, fields, nothing in _VENDORS:
        if fields(asked) != nothing:
            return vendor
    return None


def _intent(asked: EmbeddingsRequest) -> InputType | None:
    if asked.input_type is None and asked.task is None:
        return None
    by_type = intents.intent(intents.VOYAGE, asked.input_type, "input_type")
    by_task = intents.intent(intents.JINA, asked.task, "task")
    return _agreed(asked, input_type=by_type, task=by_task)


def _truncate(asked: EmbeddingsRequest) -> Truncate | None:
    """None, the server's own policy, where nothing is said.

    Jina refuses long texts by default, OpenAI and Voyage do not; a request need not say whose
    it is.
    """
    given = asked.truncate
    if given is None and asked.truncation is None:
        return None
    end = intents.truncate(given) if isinstance(given, str) else _YES_NO[given]
    return _agreed(asked, truncation=_YES_NO[asked.truncation], truncate=end)


def _agreed(asked: EmbeddingsRequest, **meanings: T | None) -> T | None:
    """What two fields say that mean the same. Raises InvalidRequestError where they differ."""
    said = [field for field in meanings if getattr(asked, field) is not None]
    if len(said) > 1 and meanings[said[0]] != meanings[said[1]]:
        raise _contradiction(asked, *said)
    return meanings[said[0]] if said else None


def _contradiction(asked: EmbeddingsRequest, first: str, second: str) -> InvalidRequestError:
    one, other = (
        decoding.clip(msgspec.json.encode(getattr(asked, field)).decode())
        for field in (first, second)
    )
    return InvalidRequestError(
        f"{first} is {one} but {second} is {other}; leave one of them out.", param=second
    )


def _forms(asked: EmbeddingsRequest) -> tuple[tuple[Form, ...], Encoding]:
    """What the numbers are, and whether they come in base64. Raises InvalidRequestError.

    Float32, alone, is the plain form: (). Beside Voyage's `output_dtype`, `encoding_format`
    says how it is written; Jina's `embedding_type` says both, so the two must not differ.
    """
    encoding: Encoding = asked.encoding_format or "float"
    given = asked.embedding_type
    types: tuple[Form, ...] = (
        (given,) if isinstance(given, str) else tuple(dict.fromkeys(given or ()))
    )
    dtype = asked.output_dtype
    if types and dtype is not None and types != (dtype,):
        raise _contradiction(asked, "output_dtype", "embedding_type")
    if asked.encoding_format is not None and types:
        # OpenAI's clients ask for base64 by themselves and read it as float32.
        fine = types in {("float",), ("base64",)} if encoding == "base64" else "base64" not in types
        if not fine:
            raise _contradiction(asked, "encoding_format", "embedding_type")
    dtypes = types or ((dtype,) if dtype is not None else ())
    if asked.normalized is False and not {"int8", "uint8"}.isdisjoint(dtypes):
        raise InvalidRequestError(
            "normalized: got false, but int8 and uint8 are levels of vectors of length 1; leave "
            "it out, or ask for float.",
            param="normalized",
        )
    if dtypes in {("float",), ("base64",)}:
        return (), "base64" if "base64" in dtypes else encoding
    return dtypes, encoding


def _texts(given: str | jina.Item | list[Any]) -> tuple[tuple[Text, ...], bool]:
    """The texts of `input`, and whether it was one bare text. Raises InvalidRequestError."""
    if isinstance(given, str):
        return (given,), True
    if isinstance(given, jina.Item):
        return (jina.text_of(given, "input"),), True
    if not given:
        return (), False
    kinds = set(map(type, given))
    if jina.Item in kinds:
        given = [
            jina.text_of(item, f"input[{index}]") if isinstance(item, jina.Item) else item
            for index, item in enumerate(given)
        ]
        kinds = kinds - {jina.Item} | {str}
    kind = type(given[0])
    if kinds != {kind}:
        odd = next(i for i, item in enumerate(given) if type(item) is not kind)
        raise InvalidRequestError(
            f"input[{odd}] is {_KINDS[type(given[odd])]} but input[0] is {_KINDS[kind]}; "
            "all items must be of one kind.",
            param=f"input[{odd}]",
        )
    if kind is int:
        return (tuple(given),), True
    return tuple(given if kind is str else map(tuple, given)), False


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


def encode_request(asked: Asked) -> bytes:
    """What a client posts. Input type, truncation and norm have no field here."""
    request = asked.request
    if asked.dtypes:
        raise ValueError("OpenAI's format has float32 only")
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
