"""Our own routes, and the probes. `POST /embed` is in `shared`.

It must never hold what another dialect has a word for.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import orjson
from aiohttp import web

from cortex_embed.server import handlers, pages
from cortex_embed.server.keys import SERVICE, TRAFFIC
from cortex_embed.server.route import JSON, TEXT, Operation, Route
from cortex_embed.wire import generate, native


async def status(request: web.Request) -> web.Response:
    """What runs here; for a browser, the page. 200 in every phase: it reports, `readyz` judges."""
    if pages.prefers_html(request.headers):
        response = await pages.send("index.html", request)
    else:
        response = _status(request)
    response.headers["Vary"] = "Accept"
    return response


def _status(request: web.Request) -> web.Response:
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


async def stats(request: web.Request) -> web.Response:
    """The load, for a page that shows it."""
    from cortex_embed.providers.memory import resident

    metrics = request.app[SERVICE].metrics
    texts, tokens = metrics.waiting()
    told = native.Stats(
        uptime=round(metrics.uptime, 3),
        in_flight=request.app[TRAFFIC].in_flight,
        queued_texts=texts,
        queued_tokens=tokens,
        requests=metrics.embeds,
        texts=metrics.texts,
        tokens=metrics.tokens,
        truncated=metrics.truncations,
        rss=await asyncio.to_thread(resident),
    )
    return web.Response(body=msgspec.json.encode(told), content_type=JSON)


async def metrics(request: web.Request) -> web.Response:
    """Everything counted, for Prometheus."""
    from cortex_embed.server import exposition

    service = request.app[SERVICE]
    told = exposition.families(service, request.app[TRAFFIC].in_flight)
    accept = ",".join(request.headers.getall("Accept", ()))
    shown = await asyncio.to_thread(exposition.render, told, accept, began=service.metrics.started)
    return web.Response(body=shown.body, headers={"Content-Type": shown.media})


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
        "/encode",
        native,
        handlers.embed_in(native),
        Operation(
            "Embed texts, by another name of a system that this one replaces",
            native.EmbedBody,
            native.EmbedReply,
            {"texts": ["hello", "world"]},
            errors=(400, 404, 408, 412, 413, 429, 503),
        ),
    ),
    Route(
        "POST",
        "/v1/embeddings/generate",
        generate,
        handlers.embed_in(generate),
        Operation(
            "Embed one text or several, as a system that this one replaces was asked",
            generate.GenerateRequest,
            generate.GenerateResponse,
            {"text": "hello", "use_fallback": False},
            errors=(400, 404, 408, 412, 413, 429, 503),
        ),
    ),
    Route(
        "GET",
        "/model_info",
        native,
        model_info,
        Operation(
            "The manifest of a model",
            response=dict[str, Any],
            errors=(404,),
            query={"model": "an id, a repository or an alias; without it, the default model"},
        ),
    ),
    Route("GET", "/stats", native, stats, Operation("The load", response=native.Stats)),
    Route(
        "GET",
        "/metrics",
        native,
        metrics,
        Operation("Metrics for Prometheus", response=str, media=TEXT),
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
        Operation(
            "Is the model loaded, and the server not draining?",
            response=native.Phase,
            others={503: native.Phase},
        ),
    ),
)
