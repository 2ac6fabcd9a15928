"""Which path is answered by which handler, in which dialect: one table.

A path that is in no row still belongs to a family, so that even a 404 is one that its
client can read. It must never hold behaviour.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cortex_embed.server import handlers
from cortex_embed.wire import native, openai

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from cortex_embed.wire.dialect import Dialect


class Route(NamedTuple):
    """A row. GET rows answer HEAD as well."""

    method: str
    path: str
    dialect: Dialect
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]


ROUTES = (
    Route("GET", "/", native, handlers.status),
    Route("POST", "/embed", native, partial(handlers.embed, native)),
    Route("GET", "/model_info", native, handlers.model_info),
    Route("GET", "/livez", native, handlers.livez),
    Route("GET", "/readyz", native, handlers.readyz),
    # A base URL with and without /v1 must work. Model ids may contain slashes.
    Route("POST", "/v1/embeddings", openai, partial(handlers.embed, openai)),
    Route("POST", "/embeddings", openai, partial(handlers.embed, openai)),
    Route("GET", "/v1/models", openai, handlers.list_models),
    Route("GET", "/models", openai, handlers.list_models),
    Route("GET", "/v1/models/{id:.+}", openai, handlers.get_model),
    Route("GET", "/models/{id:.+}", openai, handlers.get_model),
)

_BY_PATH: dict[str, Dialect] = {route.path: route.dialect for route in ROUTES}
_FAMILIES: tuple[tuple[str, Dialect], ...] = (
    ("/v1", openai),
    ("/embeddings", openai),
    ("/models", openai),
)


def dialect_of(path: str) -> Dialect:
    """The dialect in which a request for `path` expects its errors."""
    if path in _BY_PATH:
        return _BY_PATH[path]
    for prefix, dialect in _FAMILIES:
        if path == prefix or path.startswith(prefix + "/"):
            return dialect
    return native
