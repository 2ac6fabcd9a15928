"""The table agrees with the families, so an error is always in its route's dialect."""

from __future__ import annotations

import pytest

from cortex_embed.server.route import Route
from cortex_embed.server.routes import ROUTES, dialect_of
from cortex_embed.wire import cohere, native, ollama, openai


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_row_gets_its_own_dialect(route: Route) -> None:
    assert dialect_of(route.path.replace("{id:.+}", "BAAI/bge")) is route.dialect


@pytest.mark.parametrize(
    "path", ["/v1", "/v1/", "/v1/nothing", "/models/", "/embeddings/x", "/v1/embeddings/x"]
)
def test_openai_family(path: str) -> None:
    assert dialect_of(path) is openai


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/delete", "/api/embed/x"])
def test_ollama_family(path: str) -> None:
    assert dialect_of(path) is ollama.ERRORS


@pytest.mark.parametrize("path", ["/v2", "/v2/", "/v2/rerank", "/v1/embed/", "/v1/embed/x"])
def test_cohere_family(path: str) -> None:
    assert dialect_of(path).NAME == cohere.NAME


@pytest.mark.parametrize("path", ["", "/apis", "/nothing", "/v10", "/modelsx", "/embed/", "*"])
def test_the_rest_is_native(path: str) -> None:
    assert dialect_of(path) is native
