"""Around every request: an id, and the one place where errors become responses.

An unexpected exception is logged by type and line, never by message: messages quote the
values they choke on, and those may be texts or keys.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from random import Random
from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed import __version__
from cortex_embed.errors import (
    AuthenticationError,
    EmbedError,
    InvalidRequestError,
    NotReadyError,
    RouteError,
)
from cortex_embed.logs import described
from cortex_embed.server.guard import PROBES
from cortex_embed.server.keys import DIALECT, REQUEST_ID, TRACE
from cortex_embed.server.pages import is_page
from cortex_embed.server.routes import dialect_of
from cortex_embed.server.trace import HEADER as TRACEPARENT
from cortex_embed.server.trace import parse as parse_trace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cortex_embed.server.cors import Cors
    from cortex_embed.server.fast_path import FastPath
    from cortex_embed.server.guard import Guard
    from cortex_embed.server.keys import Traffic
    from cortex_embed.server.trace import Trace
    from cortex_embed.service import EmbeddingService

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ID_HEADER = "X-Request-Id"
PHASE = "X-Phase"
_OTHER = "other"
CLIENT_LEFT = 499
"""nginx's number for it."""
_SANE_ID = re.compile(r"[\w.:/+=@~-]{1,128}", re.ASCII)
_PATH_SHOWN = 100
SERVER = f"cortex-embed/{__version__}"
# An id tells requests apart and keeps no secret; the system's randomness is a call into it, where
# this thread may have to wait for its turn. Seeded from there, once a process.
_ids = Random()  # noqa: S311

log = logging.getLogger(__name__)


@web.middleware
class Around:
    """Around every request to `service`. It has what it needs, since asking the application for
    each takes two calls, at every request."""

    def __init__(
        self,
        service: EmbeddingService,
        traffic: Traffic,
        guard: Guard,
        cors: Cors,
        fast: FastPath | None,
    ) -> None:
        self._fast = fast
        self._service = service
        self._traffic = traffic
        self._guard = guard
        self._cors = cors

    async def __call__(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Count the request, answer it or its error, and sign the answer."""
        began = time.perf_counter()
        headers = request.headers
        given = headers.get(ID_HEADER, "")
        request_id = given if _SANE_ID.fullmatch(given) else new_id()
        request[REQUEST_ID] = request_id
        request[TRACE] = _trace(request)
        request[DIALECT] = dialect_of(request.path)
        with self._traffic.requests:
            try:
                response = await self._answered(request, handler)
            except asyncio.CancelledError:
                self._count(request, CLIENT_LEFT, began)
                raise
            except Exception as why:
                error = _translated(request, why)
                self._service.metrics.failed(error.code)
                response = error_response(request, error)
        self._count(request, response.status, began)
        signed = response.headers
        signed.update(signature(request_id))
        if self._cors.is_on:
            signed.extend(self._cors.simple(headers))
        if self._service.phase == "draining":
            response.force_close()
        if self._fast is not None:
            self._fast.learn(request, response)
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The handler's answer, or that to a preflight. Raises what guard and handler raise."""
        cors, guard, headers, path = self._cors, self._guard, request.headers, request.path
        if cors.is_preflight(request.method, headers):
            guard.check_names(headers)
            return web.Response(status=204, headers=cors.preflight(headers))
        guard.check(path, headers, is_page=is_page(request))
        if self._fast is not None:
            self._fast.fail(request)
        if path in PROBES:  # it asks whether we live, which is no reason to live on
            return await handler(request)
        with self._traffic.uses:
            return await handler(request)

    def _count(self, request: web.Request, status: int, began: float) -> None:
        seconds = time.perf_counter() - began
        self._service.metrics.answered(request[DIALECT].NAME, route_of(request), status, seconds)


def new_id() -> str:
    """For a request that came without one."""
    return f"{_ids.getrandbits(128):032x}"


def signature(request_id: str | None = None) -> dict[str, str]:
    """The headers that every reply has."""
    return {ID_HEADER: request_id or new_id(), "Server": SERVER}


def route_of(request: web.Request) -> str:
    """Its name in metrics. Only ours: a client could make up any number of paths."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else _OTHER


def _trace(request: web.Request) -> Trace | None:
    given = request.headers.getall(TRACEPARENT, ())
    return parse_trace(given[0]) if len(given) == 1 else None


def error_response(request: web.Request, error: EmbedError) -> web.Response:
    """`error` as the clients of this path expect it."""
    dialect = request[DIALECT]
    response = web.Response(
        body=dialect.encode_error(error),
        status=dialect.status(error),
        content_type="application/json",
    )
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if isinstance(error, NotReadyError):
        response.headers[PHASE] = error.phase
    if isinstance(error, AuthenticationError):
        response.headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RouteError) and error.allowed:
        response.headers["Allow"] = ", ".join(error.allowed)
    if response.status in {408, 413} or request.content.exception() is not None:
        # What is left of the body would be read as the next request.
        response.force_close()
    return response


def _translated(request: web.Request, why: Exception) -> EmbedError:
    """Any exception as one of ours; what should not have happened is logged."""
    if isinstance(why, EmbedError) and (why.status < 500 or why.retryable):
        return why
    if isinstance(why, web.HTTPNotFound):
        path = request.path[:_PATH_SHOWN]
        return RouteError(
            f"There is nothing at {path}. Try POST /embed, POST /v1/embeddings, GET /v1/models."
        )
    if isinstance(why, web.HTTPMethodNotAllowed):
        allowed = tuple(sorted(why.allowed_methods))
        path = request.path[:_PATH_SHOWN]
        return RouteError(
            f"{path} answers {', '.join(allowed)}, not {request.method[:20]}.", allowed=allowed
        )
    if isinstance(why, web.HTTPException) and why.status < 500:
        return InvalidRequestError(why.reason)
    request_id, trace = request[REQUEST_ID], request[TRACE]
    fields = {"request_id": request_id} | ({"trace_id": trace.trace_id} if trace else {})
    traced = f" (trace {trace.trace_id})" if trace else ""
    log.error(
        "request %s failed%s: %s", request_id, traced, described(why), extra={"fields": fields}
    )
    if isinstance(why, EmbedError):
        return why
    return EmbedError(f"The server failed on this request; its log has more under {request_id}.")
