"""Our own routes, and the probes. `POST /embed` is shared with text-embeddings-inference: the
body's field tells whose it is.

It must never hold what another dialect has a word for.
"""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web

from cortex_embed.server import handlers
from cortex_embed.server.keys import SERVICE
from cortex_embed.server.route import JSON, Operation, Route
from cortex_embed.wire import native


async def embed(request: web.Request) -> web.Response:
    """Texts in, vectors out: in our words, or in TEI's."""
    return await handlers.embed(native, request)


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
    """Everything of a model's manifest that a client can use; `?model=` names another than the
    default. Raises ModelNotFoundError."""
    return _json(request.app[SERVICE].served(request.query.get("model")).facts)


async def livez(_request: web.Request) -> web.Response:
    """The process answers."""
    return _json({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether to send requests here: 503 while the default model is loaded for the first time,
    and while draining."""
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


ROUTES = (
    Route("GET", "/", native, status, Operation("What runs here", response=native.Status)),
    Route(
        "POST",
        "/embed",
        native,
        embed,
        Operation(
            "Embed texts",
            native.EmbedBody,
            native.EmbedReply,
            {"texts": ["hello", "world"], "mode": "passage"},
            errors=(400, 404, 408, 413, 429, 503),
        ),
    ),
    Route(
        "GET",
        "/model_info",
        native,
        model_info,
        Operation(
            "The manifest of the default model, or of ?model=NAME",
            response=dict[str, Any],
            errors=(404,),
        ),
    ),
    Route(
        "GET",
        "/livez",
        native,
        livez,
        Operation("Does the process answer?", response=native.Phase),
    ),
    Route(
        "GET",
        "/readyz",
        native,
        readyz,
        Operation("Is the model loaded, and the server not draining?", response=native.Phase),
    ),
)
