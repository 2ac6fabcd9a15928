"""What every route that takes texts does: read the body, decode, ask the service, encode.

The files in `dialects/` say which routes these are. Errors are raised, never answered here
(`middleware` does that), and nothing here may look into a text.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed.errors import (
    InvalidRequestError,
    NotReadyError,
    PayloadTooLargeError,
    RequestTimeoutError,
)
from cortex_embed.server.keys import LOADED, SERVICE, SETTINGS
from cortex_embed.server.route import JSON

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.domain import Truncation
    from cortex_embed.wire.dialect import Dialect

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
    return await answer(dialect, request, await read_body(request))


async def answer(dialect: Dialect, request: web.Request, body: bytes) -> web.Response:
    """The response to `body`, a request for vectors in `dialect`."""
    service = request.app[SERVICE]
    decode = partial(dialect.decode_request, body, served=service.resolve(None).id)
    asked = await asyncio.to_thread(decode) if len(body) > LARGE_BODY else decode()
    await wait_for_model(request, asked.request.model, dialect.LOAD_WAIT)
    result = await service.embed(asked.request)
    encode = partial(dialect.encode_response, asked, result)
    large = result.vectors.size > LARGE_REPLY
    payload = await asyncio.to_thread(encode) if large else encode()
    return web.Response(
        body=payload, content_type=JSON, headers=truncation_headers(result.truncations)
    )


async def wait_for_model(request: web.Request, model: str | None, at_least: float = 0.0) -> None:
    """Wait for the model called `model`, for as long as --load-wait or the dialect says.

    It is loaded if it is not in memory. Raises ModelNotFoundError, ModelLoadError.
    """
    service = request.app[SERVICE]
    seconds = max(request.app[SETTINGS].load_wait, at_least)
    if service.phase == "loading":
        began = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await request.app[LOADED].wait()
        seconds -= time.monotonic() - began
    await service.prepare(model, seconds)


async def read_body(request: web.Request) -> bytes:
    """The whole body. Raises PayloadTooLargeError, RequestTimeoutError, InvalidRequestError,
    and NotReadyError when the server is stopping.

    `client_max_size` counts bytes after decompression, so a gzip bomb meets it too.
    """
    if request.app[SERVICE].phase == "draining":
        raise NotReadyError("The server is stopping; send the request again.", phase="draining")
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


def truncation_headers(truncations: Sequence[Truncation]) -> dict[str, str]:
    """How many texts were cut, and which: the first hundred by index."""
    if not truncations:
        return {}
    indices = [str(cut.index) for cut in truncations[:_INDICES_SHOWN]]
    return {"X-Truncated": str(len(truncations)), "X-Truncated-Indices": ",".join(indices)}
