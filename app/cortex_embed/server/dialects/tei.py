"""The routes that text-embeddings-inference alone has. `/embed` and `POST /` are in `shared`.

It must never claim what TEI could not: `/info` tells our own limits under TEI's names.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeVar

from aiohttp import web

from cortex_embed import __version__
from cortex_embed.errors import NotReadyError
from cortex_embed.server import handlers
from cortex_embed.server.keys import SERVICE, SETTINGS
from cortex_embed.server.route import JSON, Operation, Route
from cortex_embed.wire import tei, tei_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_TOKENIZING_THREADS = 1
"""What a provider has (`providers/local.py`): the tokenizer is seldom what one waits for."""
_DTYPES: dict[str, Literal["float32", "int16", "int8"]] = {"int16": "int16", "int8": "int8"}


async def embed_all(request: web.Request) -> web.Response:
    """Every token's state, special tokens included: what pooling would read."""
    body = await handlers.read_body(request)
    asked = await handlers.decoded(tei_tokens.decode_embed_all, body)
    handlers.check_fingerprint(request, asked.model)
    await handlers.wait_for_model(request, asked.model)
    service = request.app[SERVICE]
    found = await service.token_states(asked)
    size = sum(rows.size for rows in found.states)
    payload = await _encoded(tei_tokens.encode_states, found, large=size > handlers.LARGE_REPLY)
    own = service.served(asked.model).fingerprint
    headers = handlers.vector_headers(own, found.truncations)
    return web.Response(body=payload, content_type=JSON, headers=headers)


async def tokenize(request: web.Request) -> web.Response:
    """The tokens of each text, whole: nothing is truncated."""
    body = await handlers.read_body(request)
    asked, special = await handlers.decoded(tei_tokens.decode_tokenize, body)
    await handlers.wait_for_model(request, asked.model)
    tokens = await request.app[SERVICE].tokenize(asked, special=special)
    large = 5 * sum(map(len, tokens)) > handlers.LARGE_REPLY  # five values a token
    payload = await _encoded(tei_tokens.encode_tokens, tokens, large=large)
    return web.Response(body=payload, content_type=JSON)


async def decode(request: web.Request) -> web.Response:
    """The text of each list of token ids."""
    body = await handlers.read_body(request)
    asked, skip_special = await handlers.decoded(tei_tokens.decode_decode, body)
    await handlers.wait_for_model(request, asked.model)
    texts = await request.app[SERVICE].detokenize(asked, skip_special=skip_special)
    return web.Response(body=tei_tokens.encode_texts(texts), content_type=JSON)


async def info(request: web.Request) -> web.Response:
    """What is served, and within which limits."""
    model, settings = request.app[SERVICE].models()[0], request.app[SETTINGS]
    spec = model.spec
    known = tei.TeiInfo(
        model_id=spec.repo,
        model_sha=spec.revision,
        model_dtype=_DTYPES.get(str(model.facts.get("precision")), "float32"),
        served_model_name=spec.id,
        model_type={"embedding": {"pooling": spec.pooling}},
        # The queue counts tokens: so many texts of full length may wait in it.
        max_concurrent_requests=max(1, settings.max_queue_tokens // spec.max_tokens),
        max_input_length=spec.max_tokens,
        max_batch_tokens=settings.max_batch_tokens,
        max_client_batch_size=settings.max_inputs,
        auto_truncate=settings.on_overlong != "error",
        tokenization_workers=_TOKENIZING_THREADS,
        version=__version__,
        dimensions=spec.dimensions,
        fingerprint=model.fingerprint,
    )
    return web.Response(body=tei.encode_info(known), content_type=JSON)


async def health(request: web.Request) -> web.Response:
    """Whether to send requests here, without a body. Raises NotReadyError."""
    phase = request.app[SERVICE].phase
    if phase != "ready":
        raise NotReadyError("unhealthy", phase=phase)
    return web.Response()


async def _encoded(encode: Callable[[T], bytes], value: T, *, large: bool) -> bytes:
    return await asyncio.to_thread(encode, value) if large else encode(value)


_ERRORS = (400, 408, 412, 413, 422, 424, 429, 503)
_PAIR = {"source_sentence": "hello", "sentences": ["world", "hello there"]}

ROUTES = (
    Route(
        "POST",
        "/embed_all",
        tei,
        embed_all,
        Operation(
            "The state of every token (text-embeddings-inference)",
            tei_tokens.TeiEmbedAllBody,
            list[list[list[float]]],
            {"inputs": "hello"},
            errors=_ERRORS,
        ),
    ),
    Route(
        "POST",
        "/similarity",
        tei,
        handlers.embed_in(tei.SIMILARITY),  # in its headers, index 0 is the one text
        Operation(
            "Compare one text with others (text-embeddings-inference)",
            tei.TeiSimilarityBody,
            list[float],
            {"inputs": _PAIR},
            errors=_ERRORS,
        ),
    ),
    Route(
        "POST",
        "/tokenize",
        tei,
        tokenize,
        Operation(
            "The tokens of texts (text-embeddings-inference)",
            tei_tokens.TeiTokenizeBody,
            list[list[tei_tokens.TeiToken]],
            {"inputs": "hello"},
            errors=_ERRORS,
        ),
    ),
    Route(
        "POST",
        "/decode",
        tei,
        decode,
        Operation(
            "The text of token ids (text-embeddings-inference)",
            tei_tokens.TeiDecodeBody,
            list[str],
            {"ids": [101, 102]},
            errors=_ERRORS,
        ),
    ),
    Route(
        "GET",
        "/info",
        tei,
        info,
        Operation("What is served (text-embeddings-inference)", response=tei.TeiInfo),
    ),
    Route(
        "GET",
        "/health",
        tei,
        health,
        Operation("Is the model loaded, and the server not draining?", errors=(503,)),
    ),
)
