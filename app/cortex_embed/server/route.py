"""A row of the table of routes, and what the API page says of it.

It exists so that the files in `dialects/` and the table can share the word without importing each
other. It must never hold behaviour.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiohttp import web

    from cortex_embed.wire.dialect import ErrorDialect

JSON = "application/json"
TEXT = "text/plain"
NDJSON = "application/x-ndjson"
HTML = "text/html"


class Operation(msgspec.Struct, frozen=True):
    """What a route does, for `/openapi.json`.

    `request` and `response` are types that msgspec knows (a body, and that of a 200); None for
    none. A `request` that is a tuple of types is a body whose fields tell which of them it is.
    `example` is a request body that works with any served model; the string "MODEL" in it stands
    for the default model's id. `errors` are the statuses that it can answer with besides those
    which every route has (see `openapi.py`).
    """

    summary: str
    request: Any = None
    response: Any = None
    example: Any = None
    media: str | tuple[str, ...] = JSON
    """Content type of a 200, or each that it may have."""
    errors: tuple[int, ...] = ()
    parameters: dict[str, str] = msgspec.field(default_factory=dict)
    """Names in the path, and what each is."""
    query: dict[str, str] = msgspec.field(default_factory=dict)
    """Names that may follow a `?`, and what each is. None is required."""
    others: dict[int, Any] = msgspec.field(default_factory=dict)
    """Types of the bodies of other statuses that are not the dialect's error; None for none."""
    also: tuple[ErrorDialect, ...] = ()
    """The other dialects in whose words this path can answer: where the body tells which."""


class Route(NamedTuple):
    """A row. GET rows answer HEAD as well. Without an `operation` the API page is silent on it:
    a second spelling of another row's path, or one that only refuses."""

    method: str
    path: str
    dialect: ErrorDialect
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    operation: Operation | None = None
