"""Around every request: an id, and the one place where errors become responses.

An unexpected exception is logged by type and line, never by message: messages quote the
values they choke on, and those may be texts or keys.
"""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from typing import TYPE_CHECKING
from uuid import uuid4

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
from cortex_embed.server.keys import DIALECT, GUARD, SERVICE, TRAFFIC
from cortex_embed.server.pages import is_page
from cortex_embed.server.routes import dialect_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID = "X-Request-Id"
PHASE = "X-Phase"
_SANE_ID = re.compile(r"[\w.:/+=@~-]{1,128}", re.ASCII)
_PATH_SHOWN = 100

log = logging.getLogger(__name__)


@web.middleware
async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Count the request, answer it or its error, and sign the answer."""
    given = request.headers.get(REQUEST_ID, "")
    request_id = given if _SANE_ID.fullmatch(given) else uuid4().hex
    with request.app[TRAFFIC].request():
        try:
            request.app[GUARD].check(request.path, request.headers, is_page=is_page(request))
            with _use_of(request):
                response = await handler(request)
        except Exception as why:
            response = error_response(request, _translated(request, request_id, why))
    response.headers[REQUEST_ID] = request_id
    response.headers["Server"] = f"cortex-embed/{__version__}"
    if request.app[SERVICE].phase == "draining":
        response.force_close()
    return response


def _use_of(request: web.Request) -> AbstractContextManager[None]:
    """A probe asks whether we live; it is no reason to live on."""
    return nullcontext() if request.path in PROBES else request.app[TRAFFIC].use()


def error_response(request: web.Request, error: EmbedError) -> web.Response:
    """`error` as the clients of this path expect it."""
    dialect = request.get(DIALECT) or dialect_of(request.path)
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


def _translated(request: web.Request, request_id: str, why: Exception) -> EmbedError:
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
    log.error("request %s failed: %s", request_id, described(why))
    if isinstance(why, EmbedError):
        return why
    return EmbedError(f"The server failed on this request; its log has more under {request_id}.")
