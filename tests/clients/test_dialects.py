"""One text and intent, one vector: the same float32 bytes over every dialect that we speak."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.clients.conftest import TEXTS, Target, same

if TYPE_CHECKING:
    from collections.abc import Callable


def of_base64(reply: Any) -> Any:
    rows = [item["embedding"] for item in reply["data"]]
    return [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]


def of_data(reply: Any) -> Any:
    return [item["embedding"] for item in reply["data"]]


def bodies(model: str, intent: str | None) -> dict[str, tuple[str, Any, Callable[[Any], Any]]]:
    """Every way to ask for TEXTS with `intent`: path, body, and where the rows are."""
    cohere = {None: "classification", "query": "search_query", "document": "search_document"}
    jina = {None: "text-matching", "query": "retrieval.query", "document": "retrieval.passage"}
    named = {"model": model}
    ways: dict[str, tuple[str, Any, Callable[[Any], Any]]] = {
        "native": ("/embed", {"texts": TEXTS, "mode": intent}, lambda r: r["embeddings"]),
        "tei": ("/embed", {"inputs": TEXTS, "prompt_name": intent, "truncate": True}, lambda r: r),
        "tei root": ("/", {"inputs": TEXTS, "prompt_name": intent, "truncate": True}, lambda r: r),
        "cohere v1": (
            "/v1/embed",
            named | {"texts": TEXTS, "input_type": cohere[intent]},
            lambda r: r["embeddings"],
        ),
        "cohere v2": (
            "/v2/embed",
            named | {"texts": TEXTS, "input_type": cohere[intent], "embedding_types": ["float"]},
            lambda r: r["embeddings"]["float"],
        ),
        "voyage": (
            "/v1/embeddings",
            named | {"input": TEXTS, "input_type": intent, "encoding_format": "base64"},
            of_base64,
        ),
        "jina": ("/v1/embeddings", named | {"input": TEXTS, "task": jina[intent]}, of_data),
    }
    if intent is None:
        base = named | {"input": TEXTS}
        ways |= {
            "openai": ("/v1/embeddings", base, of_data),
            "openai base64": ("/v1/embeddings", base | {"encoding_format": "base64"}, of_base64),
            "openai without v1": ("/embeddings", base, of_data),
            "ollama": ("/api/embed", base, lambda r: r["embeddings"]),
            "generate": (
                "/v1/embeddings/generate",
                named | {"text": TEXTS, "use_fallback": False},
                lambda r: r["embeddings"],
            ),
            "encode": ("/encode", {"texts": TEXTS}, lambda r: r["embeddings"]),
        }
    return ways


@pytest.mark.parametrize("intent", [None, "query", "document"])
def test_one_vector_over_every_dialect(target: Target, intent: str | None) -> None:
    expected = target.vectors(TEXTS, mode=intent)
    for name, (path, body, rows) in bodies(target.spec.id, intent).items():
        reply = target.client.post(path, body)
        assert reply.status == 200, (name, reply.body)
        same(rows(reply.json), expected)
    if intent is None:
        # One text a request: the reference alone as well.
        for text in TEXTS:
            old = {"model": target.spec.id, "prompt": text}
            reply = target.client.post("/api/embeddings", old)
            same([reply.json["embedding"]], target.vectors([text]))
    elif target.spec.query_prefix:
        assert expected.tobytes() != target.vectors(TEXTS).tobytes()
