"""Which path is answered by which handler, in which dialect: the rows of `dialects/`, in one table.

A path that is in no row still belongs to a family, so that even a 404 is one that its
client can read. It must never hold behaviour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortex_embed.server import openapi, pages
from cortex_embed.server.dialects import cohere as coheres
from cortex_embed.server.dialects import native as own
from cortex_embed.server.dialects import ollama as ollamas
from cortex_embed.server.dialects import openai as openais
from cortex_embed.server.dialects import shared
from cortex_embed.server.dialects import tei as teis
from cortex_embed.wire import cohere, native, ollama, openai

if TYPE_CHECKING:
    from cortex_embed.server.route import Route
    from cortex_embed.wire.dialect import ErrorDialect

ROUTES: tuple[Route, ...] = (
    *own.ROUTES,
    *shared.ROUTES,
    *openais.ROUTES,
    *ollamas.ROUTES,
    *teis.ROUTES,
    *coheres.ROUTES,
    *openapi.ROUTES,
    *pages.ROUTES,
)

_BY_PATH: dict[str, ErrorDialect] = {route.path: route.dialect for route in ROUTES}
_FAMILIES: tuple[tuple[str, ErrorDialect], ...] = (
    ("/v1/embed", cohere.V1),
    ("/v1", openai),
    ("/v2", cohere.V2),
    ("/embeddings", openai),
    ("/models", openai),
    ("/api", ollama.ERRORS),
)


def dialect_of(path: str) -> ErrorDialect:
    """The dialect in which a request for `path` expects its errors."""
    if path in _BY_PATH:
        return _BY_PATH[path]
    for prefix, dialect in _FAMILIES:
        if path == prefix or path.startswith(prefix + "/"):
            return dialect
    return native
