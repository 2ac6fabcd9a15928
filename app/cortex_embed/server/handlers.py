"""What every route that takes texts does: read the body, decode, ask the service, encode.

The files in `dialects/` say which routes these are. Errors are raised, never answered here
(`middleware` does that), and nothing here may look into a text.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web
from msgspec.structs import replace

from cortex_embed.domain import OpenAIIds
from cortex_embed.errors import (
    FingerprintError,
    InvalidRequestError,
    NotReadyError,
    PayloadTooLargeError,
    RequestTimeoutError,
)
from cortex_embed.server.keys import DIALECT, LOADED, SERVICE, SETTINGS
from cortex_embed.server.route import JSON

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from cortex_embed.domain import EmbedResult, Truncation
    from cortex_embed.service import EmbeddingService
    from cortex_embed.wire.dialect import Asked, ServerDialect

    Choose = Callable[[bytes], ServerDialect]
    Handler = Callable[[web.Request], Awaitable[web.Response]]

T = TypeVar("T")

# Above these a thread decodes and encodes: 2 ms of work each (measured: 9 ms per MB of token
# ids, 18 ms for 2,048 x 384 numbers), ten times what the hand-over costs. orjson and msgspec
# hold the GIL for a whole call; the encoders' slices, and the work around the one decoding
# call, let the event loop have its turn (the longest stall for 16 MB of ids: 80 ms, not 250).
LARGE_BODY = 256 * 2**10
LARGE_REPLY = 100_000
# Clients refuse long header lines (aiohttp and Node from 8 to 16 KiB for all of them).
_INDICES_SHOWN = 100
# What OpenAI's libraries, which Stainless generates, send with every request.
OPENAI_CLIENT = "X-Stainless-Lang"
READ_AS = "X-Token-Ids"
FINGERPRINT = "X-Embedding-Fingerprint"
IF_FINGERPRINT = "If-Embedding-Fingerprint"
_FINGERPRINT_SHOWN = 200


async def embed(choose: Choose, request: web.Request) -> web.Response:
    """Texts in, vectors out, in the dialect that `choose` finds the body to be in.

    The routes of which this is the handler have a shorter way as well: see `fast_path`.
    """
    body = await read_body(request)
    request[DIALECT] = dialect = await decoded(choose, body)
    return await answer(dialect, request, body)


def embed_in(dialect: ServerDialect) -> Handler:
    """The handler of a route that has one dialect."""
    return partial(embed, lambda _: dialect)


async def answer(dialect: ServerDialect, request: web.Request, body: bytes) -> web.Response:
    """The response to `body`, a request for vectors in `dialect`."""
    return await respond(dialect, request, await asked_in(dialect, request, body))


async def asked_in(dialect: ServerDialect, request: web.Request, body: bytes) -> Asked:
    """What `body` asks for in `dialect`. Raises InvalidRequestError."""
    decode = partial(
        asked_of, dialect, request.app[SERVICE], by_openai=OPENAI_CLIENT in request.headers
    )
    asked = await decoded(decode, body)
    if asked.dialect is not None:
        request[DIALECT] = asked.dialect
    return asked


def asked_of(
    dialect: ServerDialect, service: EmbeddingService, body: bytes, *, by_openai: bool
) -> Asked:
    """What `body` asks `service` for in `dialect`; `by_openai` if a client of OpenAI sent it.

    Raises InvalidRequestError.
    """
    asked = dialect.decode_request(body, served=service.resolve(None).id)
    return _marked(asked) if by_openai else asked


def _marked(asked: Asked) -> Asked:
    """`asked`, its token ids known to come from a client of OpenAI."""
    texts = asked.request.texts
    if all(isinstance(text, str) for text in texts):
        return asked
    marked = tuple(text if isinstance(text, str) else OpenAIIds(text) for text in texts)
    return dataclasses.replace(asked, request=replace(asked.request, texts=marked))


async def respond(dialect: ServerDialect, request: web.Request, asked: Asked) -> web.Response:
    """The response to `asked`, once the model is there."""
    check_fingerprint(request, asked.request.model)
    service = request.app[SERVICE]
    if not service.is_at_hand(asked.request.model):
        await wait_for_model(request, asked.request.model, dialect.LOAD_WAIT)
    payload, headers = await embedded(dialect, service, asked)
    return web.Response(body=payload, content_type=JSON, headers=headers)


async def embedded(
    dialect: ServerDialect, service: EmbeddingService, asked: Asked
) -> tuple[bytes, dict[str, str]]:
    """The body of the reply to `asked`, and what its headers say of the vectors."""
    result = await service.embed(asked.request)
    encode = partial(dialect.encode_response, asked, result)
    large = result.vectors.size > LARGE_REPLY
    payload = await asyncio.to_thread(encode) if large else encode()
    return payload, headers_of(result)


def headers_of(result: EmbedResult) -> dict[str, str]:
    """What the headers of a reply say of its vectors."""
    headers = vector_headers(result.fingerprint, result.truncations)
    if result.read_as:
        headers[READ_AS] = result.read_as
    return headers


def check_fingerprint(request: web.Request, model: str | None) -> None:
    """Hold the request to its If-Embedding-Fingerprint, which reads as If-Match does (RFC 9110,
    section 13.1.1): a list of fingerprints, or * for any. Raises FingerprintError."""
    lines = request.headers.getall(IF_FINGERPRINT, None)
    if lines is None:
        return
    given = ", ".join(lines)
    own = request.app[SERVICE].served(model).fingerprint
    if not {"*", own} & {one.strip().strip('"') for one in given.split(",")}:
        raise FingerprintError(
            f"The vectors here have the fingerprint {own or 'none'}; {IF_FINGERPRINT} asks for "
            f"{given[:_FINGERPRINT_SHOWN]!r}. Vectors of two fingerprints cannot be compared: "
            "serve the model and precision of your index, or embed the index again with these."
        )


async def decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    """What `decode` makes of `body`; off the event loop where that takes long."""
    return await asyncio.to_thread(decode, body) if len(body) > LARGE_BODY else decode(body)


async def wait_for_model(request: web.Request, model: str | None, at_least: float = 0.0) -> None:
    """Wait for the model called `model`, for as long as --load-wait or the dialect says.

    It is loaded if it is not in memory. Raises ModelNotFoundError, ModelLoadError.
    """
    service = request.app[SERVICE]
    seconds = max(request.app[SETTINGS].load_wait, at_least)
    if service.phase in ("downloading", "loading"):
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
    app, limit = request.app, request.client_max_size
    if app[SERVICE].phase == "draining":
        raise NotReadyError("The server is stopping; send the request again.", phase="draining")
    way_out = "Send fewer texts per request, or raise --max-body-bytes."
    length = request.content_length
    if length is not None and length > limit:
        raise PayloadTooLargeError(f"The body has {length} bytes; the limit is {limit}. {way_out}")
    seconds = app[SETTINGS].body_timeout
    try:
        # As of most: it came with its head, and is as long as that says.
        if length and request.content.is_eof() and "Content-Encoding" not in request.headers:
            return request.content.read_nowait()
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


def vector_headers(fingerprint: str, truncations: Sequence[Truncation]) -> dict[str, str]:
    """What every reply with vectors says of them."""
    told = {FINGERPRINT: fingerprint} if fingerprint else {}
    return told | truncation_headers(truncations)


def truncation_headers(truncations: Sequence[Truncation]) -> dict[str, str]:
    """How many texts were cut, and which: the first hundred by index."""
    if not truncations:
        return {}
    indices = [str(cut.index) for cut in truncations[:_INDICES_SHOWN]]
    return {"X-Truncated": str(len(truncations)), "X-Truncated-Indices": ",".join(indices)}
