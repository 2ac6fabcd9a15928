"""One thin function per kind of route: decode, ask the service, encode.

Errors are raised, never answered here (`middleware` does that), and no handler may look
into a text.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web

from cortex_embed.errors import (
    InvalidRequestError,
    NotReadyError,
    PayloadTooLargeError,
    RequestTimeoutError,
)
from cortex_embed.server.keys import LOADED, SERVICE, SETTINGS
from cortex_embed.wire import openai

if TYPE_CHECKING:
    from cortex_embed.domain import EmbedResult
    from cortex_embed.wire.dialect import Dialect

JSON = "application/json"
# Above these a thread decodes and encodes: 2 ms of work each (measured: 9 ms per MB of token
# ids, 18 ms for 2,048 x 384 numbers), ten times what the hand-over costs. orjson and msgspec
# hold the GIL for a whole call; the encoders' slices, and the work around the one decoding
# call, let the event loop have its turn (the longest stall for 16 MB of ids: 80 ms, not 250).
LARGE_BODY = 256 * 2**10
LARGE_REPLY = 100_000
# Clients refuse long header lines (aiohttp and Node from 8 to 16 KiB for all of them).
_INDICES_SHOWN = 100


async def embed(dialect: Dialect, request: web.Request) -> web.Response:
    """Texts in, vectors out, in the dialect of the route."""
    service = request.app[SERVICE]
    if service.phase == "draining":
        raise NotReadyError("The server is stopping; send the request again.", phase="draining")
    body = await _body(request)
    decode = partial(dialect.decode_request, body, served=service.resolve(None).id)
    asked = await asyncio.to_thread(decode) if len(body) > LARGE_BODY else decode()
    if service.phase == "loading":
        await _loaded(request)
    result = await service.embed(asked.request)
    encode = partial(dialect.encode_response, asked, result)
    large = result.vectors.size > LARGE_REPLY
    payload = await asyncio.to_thread(encode) if large else encode()
    return web.Response(body=payload, content_type=JSON, headers=_truncation_headers(result))


async def _loaded(request: web.Request) -> None:
    """Wait for the model for as long as --load-wait says."""
    with suppress(TimeoutError):
        async with asyncio.timeout(request.app[SETTINGS].load_wait):
            await request.app[LOADED].wait()


async def _body(request: web.Request) -> bytes:
    """The whole body. Raises PayloadTooLargeError, RequestTimeoutError, InvalidRequestError.

    `client_max_size` counts bytes after decompression, so a gzip bomb meets it too.
    """
    limit = request.client_max_size
    way_out = "Send fewer texts per request, or raise --max-body-bytes."
    if (request.content_length or 0) > limit:
        raise PayloadTooLargeError(
            f"The body has {request.content_length} bytes; the limit is {limit}. {way_out}"
        )
    seconds = request.app[SETTINGS].body_timeout
    try:
        async with asyncio.timeout(seconds or None):
            return await request.read()
    except TimeoutError:
        raise RequestTimeoutError(
            f"The body did not arrive within {seconds:g} s (--body-timeout)."
        ) from None
    except web.HTTPRequestEntityTooLarge:
        raise PayloadTooLargeError(
            f"The body is over the limit of {limit} bytes. {way_out}"
        ) from None
    except web.RequestPayloadError:
        # aiohttp goes on reading what an answered request left over, and would fail again.
        request.content.feed_eof()
        raise InvalidRequestError(
            "The body broke off, or is not what its Content-Encoding or Transfer-Encoding says."
        ) from None


def _truncation_headers(result: EmbedResult) -> dict[str, str]:
    """How many texts were cut, and which: the first hundred by index."""
    if not result.truncations:
        return {}
    indices = [str(cut.index) for cut in result.truncations[:_INDICES_SHOWN]]
    return {
        "X-Truncated": str(len(result.truncations)),
        "X-Truncated-Indices": ",".join(indices),
    }


async def status(request: web.Request) -> web.Response:
    """What runs here. 200 in every phase: it reports, `readyz` judges."""
    service = request.app[SERVICE]
    spec = service.resolve(None)
    return _json(
        {
            "status": "ok" if service.phase == "ready" else service.phase,
            "model": spec.repo,
            "dimensions": spec.dimensions,
            "max_tokens": spec.max_tokens,
        }
    )


async def model_info(request: web.Request) -> web.Response:
    """Everything of the default model's manifest that a client can use."""
    return _json(request.app[SERVICE].models()[0].facts)


async def list_models(request: web.Request) -> web.Response:
    models = [(model.spec, model.created) for model in request.app[SERVICE].models()]
    return web.Response(body=openai.encode_models(models), content_type=JSON)


async def get_model(request: web.Request) -> web.Response:
    """One model by any of its names. Raises ModelNotFoundError."""
    service = request.app[SERVICE]
    spec = service.resolve(request.match_info["id"])
    created = next(model.created for model in service.models() if model.spec.id == spec.id)
    return web.Response(body=openai.encode_model(spec, created), content_type=JSON)


async def livez(_request: web.Request) -> web.Response:
    """The process answers."""
    return _json({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether to send requests here: 503 while loading and while draining."""
    phase = request.app[SERVICE].phase
    if phase == "ready":
        return _json({"status": phase})
    return _json({"status": phase}, status=503, headers={"Retry-After": "1"})


def _json(
    document: Any, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    return web.Response(
        body=orjson.dumps(document), status=status, headers=headers, content_type=JSON
    )
