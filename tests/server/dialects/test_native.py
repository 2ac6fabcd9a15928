"""Our own routes over real HTTP: what runs, the manifest, the probes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from tests.server.conftest import SPEC, FakeProvider

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start


async def test_status_is_exactly_four_keys(running: Running) -> None:
    reply, body = await running.get("/")
    assert reply.status == 200
    assert reply.content_type == "application/json"
    assert json.loads(body) == {
        "status": "ok",
        "model": "Maker/Tiny-Model",
        "dimensions": 8,
        "max_tokens": 16,
    }


async def test_health_and_facts(running: Running) -> None:
    assert json.loads((await running.get("/livez"))[1]) == {"status": "ok"}
    assert json.loads((await running.get("/readyz"))[1]) == {"status": "ready"}
    assert json.loads((await running.get("/model_info"))[1]) == {"id": "tiny", "pooling": "cls"}


async def test_facts_of_another_model_by_name(start: Start) -> None:
    other = FakeProvider(replace(SPEC, id="other", repo="Maker/Other", aliases=()))
    async with start(others=[other]) as running:
        assert json.loads((await running.get("/model_info?model=Maker/Other"))[1]) == {
            "id": "other"
        }
        reply, body = await running.get("/model_info?model=third")
        assert reply.status == 404
        assert b"Served: tiny, other." in body


async def test_encode_is_embed_by_another_name(running: Running) -> None:
    request = {"texts": ["a", "x" * 17]}
    assert (await running.post("/encode", request))[1] == (await running.post("/embed", request))[1]


async def test_generate(running: Running) -> None:
    _, body = await running.post("/embed", {"texts": ["a", "x" * 17]})
    expected = json.loads(body)
    rows = expected["embeddings"]
    request = {"text": "a", "model": "small", "use_fallback": True}
    _, body = await running.post("/v1/embeddings/generate", request)
    assert json.loads(body) == {
        "embedding": rows[0],
        "model": "tiny",
        "dimensions": 8,
        "usage": {"tokens": 1},
        "fallback_used": False,
    }
    reply, body = await running.post("/v1/embeddings/generate", {"text": ["a", "x" * 17]})
    assert reply.headers["X-Truncated"] == "1"
    assert json.loads(body) == {"embedding": rows[0], "fallback_used": False, **expected}


@pytest.mark.parametrize(
    ("path", "sent", "status", "param"),
    [
        ("/encode", {"texts": [""]}, 400, "texts[0]"),
        ("/encode", {"texts": ["a"], "model": "nope"}, 404, "model"),
        ("/v1/embeddings/generate", {"text": ""}, 400, "text"),
        ("/v1/embeddings/generate", {"text": ["a", ""]}, 400, "text[1]"),
        ("/v1/embeddings/generate", {"text": []}, 400, "text"),
        # Never another model in its place, whatever `use_fallback` says.
        (
            "/v1/embeddings/generate",
            {"text": "a", "model": "nope", "use_fallback": True},
            404,
            "model",
        ),
        ("/v1/embeddings/generate", b"{", 400, None),
    ],
)
async def test_their_errors_are_native(
    running: Running, path: str, sent: object, status: int, param: str | None
) -> None:
    reply, body = await running.post(path, sent)
    assert reply.status == status
    error = json.loads(body)
    assert error["param"] == param
    assert {"error", "code"} < set(error)
