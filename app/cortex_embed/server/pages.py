"""The pages for people: a playground at `/`, the API at `/docs`, and their files under `/ui/`.

They exist so that a person can see what runs here, with nothing to install. The API page is our
own: Swagger UI would be 1.4 MB of assets and one more dependency, ours is 15 KB that reads
`/openapi.json`. The files hold no data, so they are readable without a key (the requests that
they make are not). Nothing here may name a file by what a request says, or let a page reach
anything but this server.
"""

from __future__ import annotations

import asyncio
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aiohttp import web

from cortex_embed.server.route import Route
from cortex_embed.wire import native

if TYPE_CHECKING:
    from collections.abc import Mapping

UI = Path(__file__).resolve().parent / "ui"
_TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
}
ASSETS = (
    "api.js",
    "app.js",
    "charts.js",
    "docs.js",
    "icon.svg",
    "math.js",
    "snippets.js",
    "style.css",
    "theme.js",
)
_HEADERS = {
    # No inline script or style, nothing from elsewhere, in nobody's frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, answered with 304: a new version shows at the next reload.
    "Cache-Control": "no-cache",
}


class File(NamedTuple):
    """A file of `ui/`, whole, and what identifies its content."""

    content: bytes
    etag: str


@cache
def read(name: str) -> File:
    """The file `name` of `ui/`. Blocks at the first call."""
    import hashlib  # brings OpenSSL, which a start can do without

    content = (UI / name).read_bytes()
    return File(content, hashlib.sha256(content).hexdigest()[:16])


async def send(name: str, request: web.Request) -> web.Response:
    """The file `name`, or 304 where the client has it."""
    content, tag = await asyncio.to_thread(read, name)
    known = request.if_none_match or ()
    if any(one.value in {tag, "*"} for one in known):
        response = web.Response(status=304, headers=_HEADERS)
    else:
        kind = _TYPES[Path(name).suffix]
        response = web.Response(body=content, content_type=kind, charset="utf-8", headers=_HEADERS)
    response.etag = tag
    return response


def prefers_html(headers: Mapping[str, str]) -> bool:
    """Whether `Accept` asks for HTML more than for JSON (RFC 9110 section 12.5.1).

    A browser does. Whoever takes anything, as curl and the clients do, gets JSON.
    """
    accept = headers.get("Accept", "")
    return _quality(accept, "text/html") > _quality(accept, "application/json")


def _quality(accept: str, wanted: str) -> float:
    """The weight of `wanted`: that of the most specific range which holds it, 0 for none."""
    ranges = (wanted, wanted.partition("/")[0] + "/*", "*/*")
    found: dict[str, float] = {}
    for part in accept.lower().split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
        try:
            found.setdefault(kind, float(weight))
        except ValueError:
            continue  # not a weight: as if the range were not there
    return next((found[one] for one in ranges if one in found), 0.0)


def is_page(request: web.Request) -> bool:
    """Whether this asks for one of our files, which a browser must get before it has a key."""
    if request.method not in {"GET", "HEAD"}:
        return False
    return request.path in _PATHS or (request.path == "/" and prefers_html(request.headers))


ROUTES = (
    Route("GET", "/docs", native, partial(send, "docs.html")),
    *(Route("GET", f"/ui/{name}", native, partial(send, name)) for name in ASSETS),
)
_PATHS = frozenset(route.path for route in ROUTES)
