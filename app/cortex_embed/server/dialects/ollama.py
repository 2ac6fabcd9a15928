"""Ollama's routes. `HEAD` and `GET /`, by which its clients probe, are our own status route.

It must never promise what is not here: nothing is generated, nothing is downloaded, and pulling a
model that is served succeeds because it is there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from aiohttp import web

from cortex_embed.errors import ModelNotFoundError, NotReadyError, UnsupportedError
from cortex_embed.server import handlers
from cortex_embed.server.keys import SERVICE
from cortex_embed.server.route import JSON, NDJSON, Operation, Route
from cortex_embed.wire import ollama, ollama_models

if TYPE_CHECKING:
    from cortex_embed.service import ServedModel
    from cortex_embed.wire.ollama import Embed, Embeddings


async def embed(dialect: Embed | Embeddings, request: web.Request) -> web.Response:
    """Texts in, vectors out; without a text, the answer comes when the model is loaded."""
    asked = await handlers.asked_in(dialect, request, await handlers.read_body(request))
    service = request.app[SERVICE]
    model = service.resolve(asked.request.model)  # before the wait: it may be minutes
    if asked.request.texts:
        return await handlers.respond(dialect, request, asked)
    await handlers.wait_for_model(request, model.id, dialect.LOAD_WAIT)
    if service.phase != "ready" or not service.is_loaded(model.id):
        phase = "loading" if service.phase == "ready" else service.phase
        raise NotReadyError("The model is not loaded; send it again.", phase=phase)
    return _json(dialect.encode_empty(asked))


async def list_models(request: web.Request) -> web.Response:
    """Every name of every served model."""
    return _json(ollama_models.encode_tags(request.app[SERVICE].models()))


async def list_loaded(request: web.Request) -> web.Response:
    """The models in memory: none while the default one is loading."""
    service = request.app[SERVICE]
    models = [one for one in service.models() if service.is_loaded(one.spec.id)]
    return _json(ollama_models.encode_loaded(models))


async def show_model(request: web.Request) -> web.Response:
    """One model by any of its names. Raises ModelNotFoundError."""
    return _json(ollama_models.encode_model(_model(request, await _named(request))))


async def pull_model(request: web.Request) -> web.Response:
    """Progress of a model that is here already. Raises ModelNotFoundError for any other.

    Ollama streams that error after a 200. Its Python, JavaScript and Go clients raise on either,
    and a 404 is one that everyone else sees, too.
    """
    body = await handlers.read_body(request)
    served = request.app[SERVICE].resolve(None).id
    name, stream = ollama_models.decode_pull(body, served=served)
    try:
        model = _model(request, name)
    except ModelNotFoundError as why:
        raise ModelNotFoundError(
            f"pull model manifest: file does not exist. {why.message}", param=why.param
        ) from None
    return _json(
        ollama_models.encode_pulled(model, stream=stream), media=NDJSON if stream else JSON
    )


async def version(_request: web.Request) -> web.Response:
    """The Ollama that we speak like."""
    return _json(ollama_models.encode_version())


async def refuse(verb: str, request: web.Request) -> web.Response:
    """Raises UnsupportedError, as Ollama does for an embedding model."""
    name = await _named(request)
    request.app[SERVICE].resolve(name)
    raise UnsupportedError(
        f'"{name}" does not support {verb}: it is an embedding model. Use POST /api/embed.',
        param="model",
    )


async def _named(request: web.Request) -> str:
    body = await handlers.read_body(request)
    return ollama_models.decode_model(body, served=request.app[SERVICE].resolve(None).id)


def _model(request: web.Request, name: str) -> ServedModel:
    """Raises ModelNotFoundError."""
    return request.app[SERVICE].served(name)


def _json(body: bytes, *, media: str = JSON) -> web.Response:
    return web.Response(body=body, content_type=media)


_GENERATE, _CHAT = partial(refuse, "generate"), partial(refuse, "chat")
REFUSED = frozenset({_GENERATE, _CHAT})

ROUTES = (
    Route(
        "POST",
        "/api/embed",
        ollama.EMBED,
        partial(embed, ollama.EMBED),
        Operation(
            "Embed texts (Ollama)",
            ollama.OllamaEmbedRequest,
            ollama.OllamaEmbedReply,
            {"model": "MODEL", "input": ["hello", "world"]},
            errors=(400, 404, 408, 412, 413, 503),
        ),
    ),
    Route(
        "POST",
        "/api/embeddings",
        ollama.EMBEDDINGS,
        partial(embed, ollama.EMBEDDINGS),
        Operation(
            "Embed one text (Ollama, older)",
            ollama.OllamaEmbeddingsRequest,
            ollama.OllamaEmbeddingsReply,
            {"model": "MODEL", "prompt": "hello"},
            errors=(400, 404, 408, 412, 413, 503),
        ),
    ),
    Route(
        "GET",
        "/api/tags",
        ollama.ERRORS,
        list_models,
        Operation("List the names of the served models (Ollama)", None, ollama_models.OllamaModels),
    ),
    Route(
        "GET",
        "/api/ps",
        ollama.ERRORS,
        list_loaded,
        Operation("List the models in memory (Ollama)", None, ollama_models.OllamaLoadedModels),
    ),
    Route(
        "POST",
        "/api/show",
        ollama.ERRORS,
        show_model,
        Operation(
            "One served model (Ollama)",
            ollama_models.OllamaModelRequest,
            ollama_models.OllamaShown,
            {"model": "MODEL"},
            errors=(400, 404, 408, 413, 503),
        ),
    ),
    Route(
        "POST",
        "/api/pull",
        ollama.ERRORS,
        pull_model,
        Operation(
            "Pull a model, which succeeds when it is served (Ollama)",
            ollama_models.OllamaPullRequest,
            ollama_models.OllamaProgress,
            {"model": "MODEL"},
            media=(NDJSON, JSON),  # one object with "stream": false
            errors=(400, 404, 408, 413, 503),
        ),
    ),
    Route(
        "GET",
        "/api/version",
        ollama.ERRORS,
        version,
        Operation("The version of Ollama's API (Ollama)", None, ollama_models.OllamaVersion),
    ),
    # Always refused, so the API page does not offer them.
    Route("POST", "/api/generate", ollama.ERRORS, _GENERATE),
    Route("POST", "/api/chat", ollama.ERRORS, _CHAT),
)
