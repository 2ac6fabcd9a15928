"""The aiohttp application: routes, middleware and typed state put together.

It must never open a socket (`lifecycle` does) or handle a request (`handlers` do).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed.errors import AuthenticationError, ForbiddenError
from cortex_embed.server import connection, fast_path
from cortex_embed.server.cors import Cors
from cortex_embed.server.guard import Guard
from cortex_embed.server.keys import FAST, GUARD, LOADED, SERVICE, SETTINGS, TRAFFIC, Traffic
from cortex_embed.server.middleware import Around
from cortex_embed.server.routes import ROUTES

if TYPE_CHECKING:
    from cortex_embed.config import Settings
    from cortex_embed.service import EmbeddingService


def build_app(
    settings: Settings, service: EmbeddingService, guard: Guard | None = None
) -> web.Application:
    """The application that serves `service` within the limits of `settings`."""
    traffic, guard = Traffic(), guard or Guard()
    cors = Cors(settings.cors_origins or ())
    fast = None
    if not (settings.access_log or cors.is_on) and connection.is_possible():
        fast = fast_path.FastPath(service, traffic, settings.max_body_bytes)
    around = Around(service, traffic, guard, cors, fast)
    app = web.Application(middlewares=[around], client_max_size=settings.max_body_bytes)
    app[SERVICE] = service
    app[SETTINGS] = settings
    app[TRAFFIC] = traffic
    app[GUARD] = guard
    app[LOADED] = asyncio.Event()
    app[FAST] = fast
    for route in ROUTES:
        methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
        for method in methods:
            app.router.add_route(method, route.path, route.handler, expect_handler=_expect)
    return app


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Invite a body (curl asks from 1 MiB on), unless it would be refused unread."""
    wanted = request.headers.get("Expect", "").lower() == "100-continue"
    try:
        request.app[GUARD].check(request.path, request.headers)
    except (AuthenticationError, ForbiddenError):
        wanted = False
    if wanted and (request.content_length or 0) <= request.client_max_size:
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # aiohttp reads it as "a response has begun"
    return None
