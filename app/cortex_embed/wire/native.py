"""Our own small format: texts in, embeddings out, intent stated in one word.

`POST /embed {"texts": ["…"], "mode": "query"}` gives `{"embeddings": [[…]], …}`. It must
stay a superset of that: programs exist that read nothing but `embeddings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.domain import EmbedRequest, Truncation
from cortex_embed.wire import decoding
from cortex_embed.wire.dialect import Answer, Asked
from cortex_embed.wire.encoding import safe, strings_of, with_list

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cortex_embed.domain import EmbedResult, InputType, Truncate
    from cortex_embed.errors import EmbedError

NAME = "native"
LOAD_WAIT = 0.0
_EXAMPLE = '{"texts": ["Hello"]}'
_INPUT_TYPES: dict[str | None, InputType | None] = {
    None: None,
    "query": "query",
    "passage": "document",
    "document": "document",
}


class EmbedBody(msgspec.Struct, omit_defaults=True):
    """Body of POST /embed. Unknown fields are ignored; null means not given."""

    texts: Annotated[
        list[str], Meta(description='a list of strings, such as ["Hello"] for one text')
    ]
    mode: Annotated[
        Literal["query", "passage", "document"] | None,
        Meta(description='"query" or "passage" (also "document"), or left out for no prefix'),
    ] = None
    model: Annotated[str | None, Meta(description="the name of a served model")] = None
    dimensions: Annotated[int | None, Meta(description="a whole number from 1 up")] = None
    normalize: Annotated[bool | None, Meta(description="true or false")] = None
    truncate: Annotated[
        bool | Literal["end", "start", "none"] | None,
        Meta(description='true, false, "end", "start" or "none"'),
    ] = None


class NativeUsage(msgspec.Struct):
    """Tokens of the model's own tokenizer, special ones included."""

    tokens: int


class TruncatedText(msgspec.Struct):
    """Text `index` had `tokens` tokens, of which `used` were embedded."""

    index: int
    tokens: int
    used: int


class EmbedReply(msgspec.Struct):
    """Body of a 200 to POST /embed. `truncated` is there only when a text was."""

    embeddings: list[list[float]]
    model: str | None = None
    dimensions: int | None = None
    usage: NativeUsage | None = None
    truncated: list[TruncatedText] = []


class Status(msgspec.Struct):
    """Body of GET /. `model` is the default model's repository."""

    status: Literal["ok", "downloading", "loading", "draining"]
    model: str
    dimensions: int
    max_tokens: int


class Phase(msgspec.Struct):
    """Body of the probes."""

    status: Literal["ok", "ready", "downloading", "loading", "draining"]


class NativeError(msgspec.Struct):
    """Body of an error. `code` is stable; `param` is the path of the field at fault.

    `error_type` is text-embeddings-inference's word: its clients meet this body where a request
    to /embed is refused before it is read.
    """

    error: str
    code: str
    error_type: str
    param: str | None = None


class Stats(msgspec.Struct):
    """Body of GET /stats: the load now, and what was done since the start.

    `uptime` is in seconds, `rss` in bytes (null where the system does not tell). `requests` are
    those for vectors, answered or not; `truncated` counts texts.
    """

    uptime: float
    in_flight: int
    queued_texts: int
    queued_tokens: int
    requests: int
    texts: int
    tokens: int
    truncated: int
    rss: int | None


ERROR = NativeError
_request = msgspec.json.Decoder(EmbedBody)


def decode_request(body: bytes, *, served: str) -> Asked:
    asked = decoding.decode(_request, body, example=_EXAMPLE)
    return Asked(
        EmbedRequest(
            texts=tuple(asked.texts),
            model=asked.model,
            input_type=_INPUT_TYPES[asked.mode],
            dimensions=decoding.bounded(asked.dimensions),
            truncate=_truncate(asked.truncate),
            normalize=asked.normalize is not False,
            param="texts",
        )
    )


def _truncate(given: bool | Truncate | None) -> Truncate | None:
    """Text-embeddings-inference says true and false; we say which end is cut."""
    if isinstance(given, bool):
        return "end" if given else "none"
    return given


def encode_response(asked: Asked, result: EmbedResult) -> bytes:
    import numpy as np

    tail: dict[str, Any] = {
        "model": result.model.id,
        "dimensions": result.vectors.shape[1],
        "usage": {"tokens": result.tokens},
    }
    if result.truncations:
        tail["truncated"] = listed(result.truncations)
    rows = np.ascontiguousarray(result.vectors)
    return with_list({}, "embeddings", rows, tail)


def listed(truncations: Iterable[Truncation]) -> list[dict[str, int]]:
    """What stands under `truncated`, here and wherever a body may have a key more."""
    return [{"index": cut.index, "tokens": cut.tokens, "used": cut.used} for cut in truncations]


def truncations_of(given: Iterable[TruncatedText]) -> tuple[Truncation, ...]:
    """The inverse of `listed`."""
    return tuple(Truncation(cut.index, cut.tokens, cut.used) for cut in given)


def status(error: EmbedError) -> int:
    return error.status


def encode_error(error: EmbedError) -> bytes:
    from cortex_embed.wire.tei import error_type  # here: `rpc` has no use for its types

    return orjson.dumps(
        {
            "error": safe(error.message),
            "code": error.code,
            "error_type": error_type(error),
            "param": safe(error.param) if error.param else None,
        }
    )


def encode_request(asked: Asked) -> bytes:
    request = asked.request
    texts = strings_of(request.texts, "the native format")
    return msgspec.json.encode(
        EmbedBody(
            texts=texts,
            mode="passage" if request.input_type == "document" else request.input_type,
            model=request.model,
            dimensions=request.dimensions,
            normalize=None if request.normalize else False,
            truncate=request.truncate,
        )
    )


def decode_response(body: bytes) -> Answer:
    import numpy as np

    try:
        reply = decoding.decoder_of(EmbedReply).decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"not a native reply: {why}") from None
    vectors = np.array(reply.embeddings, dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError("not a native reply: no embeddings")
    return Answer(
        vectors,
        model=reply.model,
        tokens=reply.usage.tokens if reply.usage else None,
        truncations=truncations_of(reply.truncated),
    )
