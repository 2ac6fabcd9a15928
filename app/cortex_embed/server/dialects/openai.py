"""OpenAI's routes. A base URL with and without /v1 must work; model ids may contain slashes.

Voyage's and Jina's clients speak to `/v1/embeddings` as well. It must never answer for a model
that was not asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed.server import handlers
from cortex_embed.server.keys import SERVICE
from cortex_embed.server.route import JSON, Operation, Route
from cortex_embed.wire import embeddings, openai

if TYPE_CHECKING:
    from cortex_embed.service import EmbeddingService, ServedModel


async def list_models(request: web.Request) -> web.Response:
    service = request.app[SERVICE]
    models = [_about(model, service) for model in service.models()]
    return web.Response(body=openai.encode_models(models), content_type=JSON)


async def get_model(request: web.Request) -> web.Response:
    """One model by any of its names. Raises ModelNotFoundError."""
    service = request.app[SERVICE]
    model = _about(service.served(request.match_info["id"]), service)
    return web.Response(body=openai.encode_model(model), content_type=JSON)


def _about(model: ServedModel, service: EmbeddingService) -> openai.Model:
    return openai.about(
        model.spec,
        created=model.created,
        fingerprint=model.fingerprint,
        loaded=service.is_loaded(model.spec.id),
    )


_EMBED = handlers.embed_in(openai)

ROUTES = (
    Route(
        "POST",
        "/v1/embeddings",
        openai,
        _EMBED,
        Operation(
            "Embed texts (OpenAI)",
            openai.EmbeddingsRequest,
            embeddings.EmbeddingsResponse,
            {"model": "MODEL", "input": ["hello", "world"]},
            errors=(400, 404, 408, 412, 413, 429, 503),
        ),
    ),
    Route("POST", "/embeddings", openai, _EMBED),
    Route(
        "GET",
        "/v1/models",
        openai,
        list_models,
        Operation("List the served models (OpenAI)", response=openai.Models),
    ),
    Route("GET", "/models", openai, list_models),
    Route(
        "GET",
        "/v1/models/{id:.+}",
        openai,
        get_model,
        Operation(
            "One served model (OpenAI)",
            response=openai.Model,
            errors=(404,),
            parameters={"id": "an id, a repository or an alias of the model"},
        ),
    ),
    Route("GET", "/models/{id:.+}", openai, get_model),
)
