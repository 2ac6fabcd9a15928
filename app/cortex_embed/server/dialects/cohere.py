"""Cohere's routes: version 1 and 2 of `embed`, for clients whose base URL is ours.

It must never answer for another of Cohere's endpoints: there is no model here that chats or
ranks.
"""

from __future__ import annotations

from typing import Any

from cortex_embed.server import handlers
from cortex_embed.server.route import Operation, Route
from cortex_embed.wire import cohere

_ERRORS = (400, 404, 408, 412, 413, 429, 503)
_EXAMPLE: dict[str, Any] = {
    "model": "MODEL",
    "texts": ["hello", "world"],
    "input_type": "search_document",
}

ROUTES = (
    Route(
        "POST",
        "/v1/embed",
        cohere.V1,
        handlers.embed_in(cohere.V1),
        Operation(
            "Embed texts (Cohere, version 1)",
            cohere.CohereV1Request,
            cohere.CohereResponse,
            _EXAMPLE,
            errors=_ERRORS,
        ),
    ),
    Route(
        "POST",
        "/v2/embed",
        cohere.V2,
        handlers.embed_in(cohere.V2),
        Operation(
            "Embed texts (Cohere, version 2)",
            cohere.CohereV2Request,
            cohere.CohereResponse,
            {**_EXAMPLE, "embedding_types": ["float", "int8"]},
            errors=_ERRORS,
        ),
    ),
)
