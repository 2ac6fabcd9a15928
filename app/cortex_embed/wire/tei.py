"""Text-embeddings-inference's API, which Hugging Face's `InferenceClient` and Chroma speak too.

Source: `router/src/http/{server,types}.rs` of
https://github.com/huggingface/text-embeddings-inference (1.9.3). /embed goes both ways; what
gives no vectors is here as a server speaks it, and `tei_tokens` has what is about tokens. It must
never answer with anything but bare lists: clients read the body as an array.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import EngineError, InvalidRequestError
from cortex_embed.wire import decoding
from cortex_embed.wire.dialect import Answer, Asked
from cortex_embed.wire.encoding import join_slices, lists_of, safe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.domain import EmbedResult, InputType, Text, Truncate
    from cortex_embed.errors import EmbedError

NAME = "tei"
LOAD_WAIT = 0.0
EMPTY = "empty_inputs"
"""Code of the one mistake that has a status and a word of its own here."""
EXAMPLE = '{"inputs": ["Hello"]}'
_PAIR = '{"source_sentence": "a text", "sentences": ["texts to compare it with"]}'
INPUT_TYPES: dict[str | None, InputType | None] = {
    None: None,
    "query": "query",
    "passage": "document",
    "document": "document",
}

T = TypeVar("T")
ErrorType = Literal["Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"]
# msgspec cannot tell [str] from [int] from [[int]] in a union; `texts_of` does.
Inputs = Annotated[
    str | list[str | decoding.TokenId | list[decoding.TokenId]],
    Meta(
        description="a text, a list of texts, the token ids of a text, or a list of such lists"
        " (ids are whole numbers from 0 to 2147483647)"
    ),
]
PromptName = Annotated[
    Literal["query", "document", "passage"] | None,
    Meta(description='"query" or "document" (also "passage"), or left out for no prefix'),
]

PARAMETERS = Meta(
    description='an object such as {"truncate": true}; what stands beside `inputs` comes first'
)


class TeiCut(msgspec.Struct, omit_defaults=True):
    """What every route that embeds can be told. null means not given."""

    truncate: Annotated[
        bool | None, Meta(description="true or false, or left out for the server's policy")
    ] = None
    truncation_direction: Annotated[
        Literal["Left", "Right", "left", "right"] | None,
        Meta(description='"Left" (the start is cut) or "Right"'),
    ] = None
    prompt_name: PromptName = None


class TeiParameters(TeiCut):
    """`TeiCut`, and what only vectors of whole texts can be told."""

    normalize: Annotated[bool | None, Meta(description="true or false")] = None
    dimensions: Annotated[int | None, Meta(description="a whole number from 1 up")] = None


class TeiEmbedBody(TeiParameters, kw_only=True, omit_defaults=True):
    """Body of POST /embed. Unknown fields are ignored, `encoding_format` too: TEI does not know
    it, and the InferenceClient that sends it can read nothing but numbers."""

    inputs: Inputs
    parameters: Annotated[TeiParameters | None, PARAMETERS] = None


class TeiPair(msgspec.Struct):
    """One text, and those to compare it with."""

    source_sentence: str
    sentences: list[str]


class TeiSimilarityBody(TeiCut, kw_only=True):
    """Body of POST /similarity. Unknown fields are ignored."""

    inputs: Annotated[TeiPair, Meta(description=f"an object such as {_PAIR}")]
    parameters: Annotated[TeiCut | None, PARAMETERS] = None


class TeiInfo(msgspec.Struct):
    """Body of GET /info: TEI's fields, and two of ours. Limits are in texts and in tokens."""

    model_id: str
    model_sha: str
    model_dtype: Literal["float32", "int16", "int8"]
    served_model_name: str
    model_type: dict[str, dict[str, str]]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    dimensions: int
    fingerprint: str
    max_batch_requests: int | None = None
    sha: str | None = None
    docker_label: str | None = None


class TeiError(msgspec.Struct):
    """Body of an error."""

    error: str
    error_type: ErrorType


ERROR = TeiError


class _Seen(msgspec.Struct):
    """Which fields a body has, whatever is in them."""

    inputs: msgspec.Raw = msgspec.Raw()
    texts: msgspec.Raw = msgspec.Raw()


@cache
def decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Made when first used: a start does not wait for those of the rarer routes."""
    return msgspec.json.Decoder(kind)


def kind_of(body: bytes) -> Literal["embed", "similarity"] | None:
    """Which of TEI's bodies `body` is, by a cheap look; None where it has no `inputs`, or the
    `texts` of our own format. Safe to call outside the event loop."""
    try:
        seen = decoder(_Seen).decode(body.removeprefix(decoding.BOM))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        # No JSON that can be read; whoever wrote `inputs` still expects TEI to say so.
        return "embed" if b'"inputs"' in body and b'"texts"' not in body else None
    inputs = memoryview(seen.inputs)
    if memoryview(seen.texts).nbytes or not inputs.nbytes:
        return None
    return "similarity" if inputs[0] == ord("{") else "embed"


def decode_request(body: bytes, *, served: str) -> Asked:
    """A body of POST /embed. `served` is not named: TEI's bodies have no word for a model."""
    del served
    asked = decoding.decode(decoder(TeiEmbedBody), body, example=EXAMPLE)
    texts, single = texts_of(asked.inputs)
    return Asked(
        EmbedRequest(
            texts=texts,
            input_type=INPUT_TYPES[stated(asked, "prompt_name")],
            dimensions=decoding.bounded(stated(asked, "dimensions")),
            truncate=truncate_of(asked),
            normalize=stated(asked, "normalize") is not False,
            param="inputs",
            single=single,
        )
    )


def texts_of(given: str | Sequence[Any], field: str = "inputs") -> tuple[tuple[Text, ...], bool]:
    """The texts of a field, and whether it was one bare text. Raises InvalidRequestError."""
    if isinstance(given, str):
        return (given,), True
    if not given:
        raise InvalidRequestError(
            f"`{field}` cannot be empty; send {EXAMPLE if field == 'inputs' else 'token ids'}.",
            param=field,
            code=EMPTY,
        )
    numbers = [index for index, item in enumerate(given) if isinstance(item, int)]
    if len(numbers) == len(given):
        return (tuple(given),), True
    if numbers:
        raise InvalidRequestError(
            f"{field}[{numbers[0]}] is a token id beside items that are none; put the ids of one "
            "text into a list of their own.",
            param=f"{field}[{numbers[0]}]",
        )
    return tuple(item if isinstance(item, str) else tuple(item) for item in given), False


def stated(body: Any, name: str) -> Any:
    """A parameter where TEI has it, beside `inputs`; else where older clients of the hub put it."""
    value = getattr(body, name)
    if value is None and body.parameters is not None:
        return getattr(body.parameters, name)
    return value


def truncate_of(body: Any) -> Truncate | None:
    """Not given means the server's policy; asking for the left side asks for truncation."""
    wanted = stated(body, "truncate")
    left = stated(body, "truncation_direction") in {"Left", "left"}
    if wanted is False:
        return "none"
    if left:
        return "start"
    return "end" if wanted else None


def encode_response(asked: Asked, result: EmbedResult) -> bytes:
    import numpy as np

    return join_slices(np.ascontiguousarray(result.vectors))


def encode_info(info: TeiInfo) -> bytes:
    """Body of GET /info."""
    return msgspec.json.encode(info)


def status(error: EmbedError) -> int:
    """TEI's: 422 for what is wrong with a body, 424 for a runtime that failed."""
    if isinstance(error, EngineError):
        return 424
    if error.status == 400 and error.code != EMPTY:
        return 422
    return error.status


def error_type(error: EmbedError) -> ErrorType:
    """TEI's word for the kind of `error`. Refusals that it has no word for are Validation."""
    if error.code == EMPTY:
        return "Empty"
    words: dict[int, ErrorType] = {429: "Overloaded", 503: "Unhealthy"}
    return words.get(error.status, "Backend" if error.status >= 500 else "Validation")


def encode_error(error: EmbedError) -> bytes:
    return orjson.dumps({"error": safe(error.message), "error_type": error_type(error)})


def encode_request(asked: Asked) -> bytes:
    """What a client posts to /embed. A TEI server has one model: there is no field for it."""
    request = asked.request
    if asked.encoding != "float" or asked.dtypes not in {(), ("float",)}:
        raise ValueError("text-embeddings-inference gives nothing but float32 numbers")
    texts: list[Any] = list(lists_of(request.texts))
    return msgspec.json.encode(
        TeiEmbedBody(
            inputs=texts[0] if request.single else texts,
            truncate=None if request.truncate is None else request.truncate != "none",
            truncation_direction="Left" if request.truncate == "start" else None,
            prompt_name=request.input_type,
            normalize=None if request.normalize else False,
            dimensions=request.dimensions,
        )
    )


def decode_response(body: bytes) -> Answer:
    import numpy as np

    try:
        rows = decoder(list[list[float]]).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"not a reply of text-embeddings-inference: {why}") from None
    vectors = np.array(rows, dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError("not a reply of text-embeddings-inference: no vectors")
    return Answer(vectors)


class _Similarity:
    """POST /similarity as a server speaks it: the first text is the one to compare with."""

    NAME = NAME
    ERROR = ERROR
    LOAD_WAIT = LOAD_WAIT
    status = staticmethod(status)
    encode_error = staticmethod(encode_error)

    def decode_request(self, body: bytes, *, served: str) -> Asked:
        """See `dialect.ServerDialect`."""
        del served
        example = f'{{"inputs": {_PAIR}}}'
        asked = decoding.decode(decoder(TeiSimilarityBody), body, example=example)
        sentences, _ = texts_of(asked.inputs.sentences, "inputs.sentences")
        return Asked(
            EmbedRequest(
                texts=(asked.inputs.source_sentence, *sentences),
                input_type=INPUT_TYPES[stated(asked, "prompt_name")],
                truncate=truncate_of(asked),
                param="inputs",
                names=(
                    "inputs.source_sentence",
                    *(f"inputs.sentences[{index}]" for index in range(len(sentences))),
                ),
            )
        )

    def encode_response(self, asked: Asked, result: EmbedResult) -> bytes:
        """Cosines, in the order of the sentences."""
        from cortex_embed.vectors import cosines

        del asked
        return join_slices(cosines(result.vectors[0], result.vectors[1:]))


SIMILARITY = _Similarity()
