"""Ollama's two embedding formats: what LangChain, LlamaIndex and most local tools speak.

Source: `api/types.go` and `server/routes.go` of https://github.com/ollama/ollama (0018813). It must
never fail a request without texts: to Ollama's clients that is how a model is warmed up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.domain import EmbedRequest, Truncation
from cortex_embed.errors import (
    TOO_LONG,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
)
from cortex_embed.wire import decoding
from cortex_embed.wire.dialect import Answer, Asked
from cortex_embed.wire.encoding import encode, safe, with_list

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.domain import EmbedResult
    from cortex_embed.errors import EmbedError

# Two blanks, as in Ollama's `ErrMaxQueue`.
BUSY = "server busy, please try again.  maximum pending requests exceeded"
_NANOSECONDS = 1e9

KeepAlive = Annotated[
    int | float | str | None,
    Meta(
        description='a duration such as "5m", or seconds; accepted, but the model stays loaded'
        " for as long as the server runs"
    ),
]
Options = Annotated[
    dict[str, Any] | None,
    Meta(description="an object of a model's options; accepted, none changes an embedding"),
]


class OllamaEmbedRequest(msgspec.Struct, omit_defaults=True):
    """Body of POST /api/embed. Unknown fields are ignored; null means not given."""

    model: Annotated[str | None, Meta(description="the name of a served model")] = None
    input: Annotated[
        str | list[str] | None,
        Meta(description="a text or a list of texts; without any, the model is only loaded"),
    ] = None
    truncate: Annotated[
        bool | None, Meta(description="true to cut a text that is too long, false to refuse it")
    ] = None
    dimensions: Annotated[
        int | None, Meta(description="a whole number from 1 up; 0 for the model's own")
    ] = None
    keep_alive: KeepAlive = None
    options: Options = None


class OllamaEmbedReply(msgspec.Struct):
    """Body of a 200 to POST /api/embed. Durations are in nanoseconds.

    `truncated` is ours, and there only when a text was.
    """

    model: str
    embeddings: list[list[float]]
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    truncated: tuple[Truncation, ...] = ()


class OllamaEmbeddingsRequest(msgspec.Struct, omit_defaults=True):
    """Body of POST /api/embeddings. Unknown fields are ignored; null means not given."""

    model: Annotated[str | None, Meta(description="the name of a served model")] = None
    prompt: Annotated[
        str | None, Meta(description="a text; without one, the model is only loaded")
    ] = None
    keep_alive: KeepAlive = None
    options: Options = None


class OllamaEmbeddingsReply(msgspec.Struct):
    """Body of a 200 to POST /api/embeddings. `truncated` is ours, and there only when true."""

    embedding: list[float]
    truncated: tuple[Truncation, ...] = ()


class OllamaError(msgspec.Struct):
    """Body of an error."""

    error: str


_embed_request = msgspec.json.Decoder(OllamaEmbedRequest)
_embed_reply = msgspec.json.Decoder(OllamaEmbedReply)
_embeddings_request = msgspec.json.Decoder(OllamaEmbeddingsRequest)
_embeddings_reply = msgspec.json.Decoder(OllamaEmbeddingsReply)


class Errors:
    """What goes wrong on any path under /api, in Ollama's words and then ours."""

    NAME = "ollama"
    ERROR = OllamaError

    def status(self, error: EmbedError) -> int:
        """503 where the queue is full: Ollama has no 429."""
        return 503 if isinstance(error, OverloadedError) else error.status

    def encode_error(self, error: EmbedError) -> bytes:
        message = error.message
        if isinstance(error, ModelNotFoundError) and error.name:
            message = f'model "{error.name}" not found, try pulling it first. {message}'
        elif isinstance(error, OverloadedError):
            message = f"{BUSY}. {message}"
        elif error.code == TOO_LONG:
            message = f"the input length exceeds the context length: {message}"
        return orjson.dumps({"error": safe(message)})


class Embed(Errors):
    """POST /api/embed: texts in, vectors of length 1 out."""

    # Ollama answers when the model is loaded, and its clients never retry.
    LOAD_WAIT = 300.0

    def decode_request(self, body: bytes, *, served: str) -> Asked:
        example = '{"model": "%s", "input": "Hello"}' % served  # noqa: UP031 - braces
        asked = decoding.decode(_embed_request, body, example=example)
        given = asked.input or ()
        return Asked(
            EmbedRequest(
                texts=(given,) if isinstance(given, str) else tuple(given),
                model=named(asked.model, served),
                # Go writes a number that was not given as 0.
                dimensions=decoding.bounded(asked.dimensions) or None,
                truncate=None if asked.truncate is None else ("end" if asked.truncate else "none"),
                param="input",
                single=isinstance(given, str),
            )
        )

    def encode_response(self, asked: Asked, result: EmbedResult) -> bytes:
        """`model` is the name that was asked for, as Ollama has it."""
        import numpy as np

        spent = result.timings
        tail = {
            "total_duration": round((spent.tokenize + spent.queue + spent.engine) * _NANOSECONDS),
            "load_duration": 0,
            "prompt_eval_count": result.tokens,
        }
        rows = np.ascontiguousarray(result.vectors)
        return with_list(
            {"model": asked.request.model}, "embeddings", rows, tail | _cuts(result.truncations)
        )

    def encode_empty(self, asked: Asked) -> bytes:
        """The answer to a request without texts, once the model is loaded."""
        return orjson.dumps({"model": asked.request.model, "embeddings": []})

    def encode_request(self, asked: Asked) -> bytes:
        texts, model = _plain(asked)
        request = asked.request
        if request.truncate == "start" or request.dimensions == 0:
            raise ValueError("Ollama cuts at the end, and reads 0 dimensions as all of them")
        if request.single and texts == [""]:
            raise ValueError("Ollama reads one empty text as none")
        return msgspec.json.encode(
            OllamaEmbedRequest(
                model=model,
                input=texts[0] if request.single else texts,
                truncate=None if request.truncate is None else request.truncate == "end",
                dimensions=request.dimensions,
            )
        )

    def decode_response(self, body: bytes) -> Answer:
        reply = _decoded(_embed_reply, body)
        return Answer(
            _matrix(reply.embeddings),
            model=reply.model,
            tokens=reply.prompt_eval_count,
            truncations=reply.truncated,
        )


class Embeddings(Errors):
    """POST /api/embeddings, the older format: one text in, one vector out.

    Ollama does not normalize here. We do: a text has one vector, whatever the dialect, and by
    cosine similarity the two are the same.
    """

    LOAD_WAIT = Embed.LOAD_WAIT

    def decode_request(self, body: bytes, *, served: str) -> Asked:
        example = '{"model": "%s", "prompt": "Hello"}' % served  # noqa: UP031 - braces
        asked = decoding.decode(_embeddings_request, body, example=example)
        return Asked(
            EmbedRequest(
                texts=(asked.prompt,) if asked.prompt else (),
                model=named(asked.model, served),
                param="prompt",
                single=True,
            )
        )

    def encode_response(self, asked: Asked, result: EmbedResult) -> bytes:
        import numpy as np

        (row,) = np.ascontiguousarray(result.vectors)
        return encode({"embedding": row, **_cuts(result.truncations)})

    def encode_empty(self, asked: Asked) -> bytes:
        """The answer to a request without a text, once the model is loaded."""
        return b'{"embedding":[]}'

    def encode_request(self, asked: Asked) -> bytes:
        texts, model = _plain(asked)
        request = asked.request
        if len(texts) != 1 or not texts[0] or request.dimensions or request.truncate:
            raise ValueError("POST /api/embeddings takes one text, and says nothing else of it")
        return msgspec.json.encode(OllamaEmbeddingsRequest(model=model, prompt=texts[0]))

    def decode_response(self, body: bytes) -> Answer:
        reply = _decoded(_embeddings_reply, body)
        return Answer(_matrix([reply.embedding]), truncations=reply.truncated)


ERRORS = Errors()
EMBED = Embed()
EMBEDDINGS = Embeddings()


def named(model: str | None, served: str) -> str:
    """`model`, which every request must name. Raises InvalidRequestError."""
    if not model:
        raise InvalidRequestError(
            f'model is required; add "model": "{served}" (GET /api/tags lists the names).',
            param="model",
        )
    return model


def _cuts(truncations: Sequence[Truncation]) -> dict[str, Any]:
    return {"truncated": truncations} if truncations else {}


def _plain(asked: Asked) -> tuple[list[str], str]:
    """The texts and the model of `asked`. Raises ValueError for what neither format can say."""
    request = asked.request
    texts = [text for text in request.texts if isinstance(text, str)]
    if len(texts) != len(request.texts):
        raise ValueError("Ollama's formats have no word for token ids")
    if request.input_type or not request.normalize:
        raise ValueError("Ollama's formats have no word for an input type or raw vectors")
    if asked.encoding != "float" or asked.dtypes not in {(), ("float",)}:
        raise ValueError("Ollama's formats have no word for other numbers than floats")
    if not request.model:
        raise ValueError("Ollama's formats must name a model")
    return texts, request.model


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as why:
        raise ValueError(f"not an Ollama reply: {why}") from None


def _matrix(rows: list[list[float]]) -> Any:
    """Rows as float32 [n, k]. Raises ValueError unless all are equally wide, and some."""
    import numpy as np

    vectors = np.array(rows, dtype=np.float32)
    if vectors.ndim != 2 or not vectors.size:
        raise ValueError("not an Ollama reply: no embeddings")
    return vectors
