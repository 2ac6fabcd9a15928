"""Answers of routes that other branches bring: POST /tokenize, GET /stats, GET /openapi.json.

To be deleted at the merge, with the one call of it in `conftest.py`. A route that the server has
is not stubbed.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from playwright.sync_api import BrowserContext, Route
from tokenizers import Tokenizer

from cortex_embed.models.store import EMBEDDED_DIR
from tests.e2e.process import Client

STATS = {
    "uptime": 754.2,
    "in_flight": 0,
    "queued_texts": 0,
    "queued_tokens": 0,
    "requests": 128,
    "texts": 1204,
    "tokens": 18211,
    "truncated": 3,
    "rss": 312_000_000,
}
OPENAPI: dict[str, Any] = {
    "openapi": "3.1.0",
    "info": {"title": "cortex-embed", "version": "0.1.0"},
    "servers": [{"url": "/"}],
    "paths": {
        "/embed": {
            "post": {
                "tags": ["native"],
                "operationId": "native_post_embed",
                "summary": "Embed texts",
                "requestBody": {
                    "required": True,
                    "content": {
                        "application/json": {
                            "schema": {"$ref": "#/components/schemas/EmbedBody"},
                            "example": {"texts": ["hello", "world"], "mode": "passage"},
                        }
                    },
                },
                "responses": {
                    "200": {
                        "description": "OK",
                        "content": {
                            "application/json": {
                                "schema": {"$ref": "#/components/schemas/EmbedReply"}
                            }
                        },
                    },
                    "400": {"description": "The request is wrong."},
                    "429": {"description": "Overloaded; see Retry-After."},
                },
            }
        },
        "/model_info": {
            "get": {
                "tags": ["native"],
                "operationId": "native_get_model_info",
                "summary": "The default model's manifest",
                "responses": {"200": {"description": "OK"}},
            }
        },
        "/v1/models/{id}": {
            "get": {
                "tags": ["openai"],
                "operationId": "openai_get_v1_models_id",
                "summary": "One served model (OpenAI)",
                "parameters": [
                    {
                        "name": "id",
                        "in": "path",
                        "required": True,
                        "description": "an id, a repository or an alias of the model",
                        "schema": {"type": "string"},
                        "example": "all-minilm-l6-v2",
                    }
                ],
                "responses": {"200": {"description": "OK"}, "404": {"description": "Not served."}},
            }
        },
    },
    "components": {
        "schemas": {
            "EmbedBody": {
                "title": "EmbedBody",
                "type": "object",
                "description": "Body of POST /embed. Unknown fields are ignored.",
                "required": ["texts"],
                "properties": {
                    "texts": {
                        "type": "array",
                        "items": {"type": "string"},
                        "description": 'a list of strings, such as ["Hello"] for one text',
                    },
                    "mode": {
                        "anyOf": [{"enum": ["document", "passage", "query"]}, {"type": "null"}],
                        "default": None,
                        "description": '"query" or "passage", or left out for no prefix',
                    },
                    "dimensions": {
                        "anyOf": [{"type": "integer"}, {"type": "null"}],
                        "default": None,
                        "description": "a whole number from 1 up",
                    },
                },
            },
            "EmbedReply": {
                "title": "EmbedReply",
                "type": "object",
                "required": ["embeddings"],
                "properties": {"embeddings": {"type": "array"}},
            },
        }
    },
}


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED_DIR / "tokenizer.json"))


def _tokenize(route: Route) -> None:
    asked = json.loads(route.request.post_data or "")
    found = []
    for text in asked["inputs"]:
        one = _tokenizer().encode(text)
        rows = zip(one.ids, one.tokens, one.special_tokens_mask, one.offsets, strict=True)
        found.append(
            [
                {
                    "id": id_,
                    "text": word if special else text[start:stop],
                    "special": bool(special),
                    "start": None if special else start,
                    "stop": None if special else stop,
                }
                for id_, word, special, (start, stop) in rows
            ]
        )
    route.fulfill(json=found)


def _missing(server: Client, method: str, path: str) -> bool:
    return server.call(method, path, b"{}" if method == "POST" else None).status == 404


def stub_missing_routes(context: BrowserContext, server: Client) -> None:
    if _missing(server, "POST", "/tokenize"):
        context.route("**/tokenize", _tokenize)
    if _missing(server, "GET", "/stats"):
        context.route("**/stats", lambda route: route.fulfill(json=STATS))
    if _missing(server, "GET", "/openapi.json"):
        context.route("**/openapi.json", lambda route: route.fulfill(json=OPENAPI))
