"""Cohere's routes over real HTTP: the vectors of /embed, and every row of the error table."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cortex_embed.errors import EngineError, OverloadedError, TextError

if TYPE_CHECKING:
    from tests.server.conftest import FakeProvider, Running, Start

VERSIONS = ["/v1/embed", "/v2/embed"]
GOOD = {"model": "tiny", "texts": ["a", "b"]}


async def vectors(running: Running, **fields: object) -> Any:
    _, body = await running.post("/embed", {"texts": ["a", "b"], **fields})
    return json.loads(body)["embeddings"]


@pytest.mark.parametrize(
    ("input_type", "mode"),
    [("search_query", "query"), ("search_document", "passage"), ("clustering", None), (None, None)],
)
async def test_the_vectors_are_those_of_embed(
    running: Running, input_type: str | None, mode: str | None
) -> None:
    expected = await vectors(running, mode=mode)
    reply, body = await running.post("/v1/embed", {**GOOD, "input_type": input_type})
    assert reply.status == 200
    answer = json.loads(body)
    assert answer["embeddings"] == expected
    assert answer["texts"] == ["a", "b"]
    request = {**GOOD, "input_type": input_type, "embedding_types": ["float", "base64"]}
    answer = json.loads((await running.post("/v2/embed", request))[1])
    assert answer["embeddings"]["float"] == expected
    buffers = [np.frombuffer(base64.b64decode(t), "<f4") for t in answer["embeddings"]["base64"]]
    np.testing.assert_array_equal(buffers, np.array(expected, np.float32))


async def test_no_model_in_version_1_is_the_default_one(running: Running) -> None:
    reply, body = await running.post("/v1/embed", {"texts": ["a", "b"]})
    assert reply.status == 200
    assert json.loads(body)["embeddings"] == await vectors(running)


async def test_dimensions_and_more_than_96_texts(running: Running) -> None:
    request = {"model": "tiny", "texts": ["a", "b"] * 300, "output_dimension": 3}
    _, body = await running.post("/v2/embed", request)
    assert json.loads(body)["embeddings"]["float"] == (await vectors(running, dimensions=3)) * 300


@pytest.mark.parametrize("path", VERSIONS)
async def test_truncation_is_a_warning(running: Running, path: str) -> None:
    reply, body = await running.post(path, {"model": "tiny", "texts": ["a", "x" * 17]})
    assert reply.headers["X-Truncated"] == "1"
    assert json.loads(body)["meta"]["warnings"] == ["texts[1] was truncated from 17 to 16 tokens"]


def message(body: bytes) -> str:
    """Cohere's error: one key, whatever went wrong."""
    document = json.loads(body)
    assert set(document) == {"message"}
    assert isinstance(document["message"], str)
    return document["message"]


@pytest.mark.parametrize("path", VERSIONS)
@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "The body is empty; send JSON such as {"),
        (b"{", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        ({"model": "tiny"}, "texts is missing"),
        ({"model": "tiny", "texts": []}, "texts is empty; send at least one text"),
        ({"model": "tiny", "texts": ["a", ""]}, "texts[1] is empty"),
        ({"model": "tiny", "texts": ["a"] * 16385}, "texts has 16385 texts; the limit is 16384"),
        ({**GOOD, "input_type": "image"}, "no images here"),
        ({**GOOD, "embedding_types": ["int4"]}, "embedding_types[0]: got 'int4'"),
        ({**GOOD, "output_dimension": 9}, "output_dimension is 9; tiny gives 1 to 8"),
    ],
)
async def test_bad_input(running: Running, path: str, sent: object, says: str) -> None:
    reply, body = await running.post(path, sent)
    assert reply.status == 400
    assert says in message(body)
    assert (await running.post(path, GOOD))[0].status == 200


@pytest.mark.parametrize("path", VERSIONS)
async def test_too_long(running: Running, provider: FakeProvider, path: str) -> None:
    provider.failure = TextError(1, "has 17 tokens; the limit is 16")
    reply, body = await running.post(path, {**GOOD, "truncate": "NONE"})
    assert reply.status == 400
    assert message(body) == "texts[1]: has 17 tokens; the limit is 16"


@pytest.mark.parametrize("path", VERSIONS)
async def test_unknown_model(running: Running, path: str) -> None:
    reply, body = await running.post(path, {**GOOD, "model": "embed-v4.0"})
    assert reply.status == 404
    assert message(body).startswith("The model 'embed-v4.0' is not served here. Served: tiny.")


@pytest.mark.parametrize("path", VERSIONS)
async def test_overloaded(running: Running, provider: FakeProvider, path: str) -> None:
    provider.failure = OverloadedError("The queue is full.", retry_after=3)
    reply, body = await running.post(path, GOOD)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "3")
    assert message(body) == "The queue is full."


@pytest.mark.parametrize("path", VERSIONS)
async def test_loading(start: Start, provider: FakeProvider, path: str) -> None:
    provider.load_gate.clear()
    async with start() as running:
        reply, body = await running.post(path, GOOD)
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert message(body) == "The model is loading; try again shortly."


@pytest.mark.parametrize("path", VERSIONS)
async def test_bad_key(start: Start, path: str) -> None:
    async with start(token="right") as running:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            reply, body = await running.post(path, GOOD, headers=headers)
            assert reply.status == 401
            assert "Authorization: Bearer" in message(body)
        reply, _ = await running.post(path, GOOD, headers={"Authorization": "Bearer right"})
        assert reply.status == 200


@pytest.mark.parametrize("path", VERSIONS)
async def test_body_over_the_limit(start: Start, path: str) -> None:
    async with start(max_body_bytes=1024) as running:
        reply, body = await running.post(path, {**GOOD, "texts": ["x" * 2000]})
        assert reply.status == 413
        assert "1024" in message(body)


@pytest.mark.parametrize("path", VERSIONS)
async def test_our_own_failure(running: Running, provider: FakeProvider, path: str) -> None:
    provider.failure = EngineError("The runtime failed.")
    reply, body = await running.post(path, GOOD)
    assert reply.status == 500
    assert message(body) == "The runtime failed."


async def test_other_paths_and_methods(running: Running) -> None:
    for path in ("/v2", "/v2/rerank", "/v2/chat", "/v1/embed/"):
        reply, body = await running.post(path, GOOD)
        assert reply.status == 404
        assert f"There is nothing at {path}." in message(body)
    reply, body = await running.get("/v2/embed")
    assert (reply.status, reply.headers["Allow"]) == (405, "POST")
    assert message(body) == "/v2/embed answers POST, not GET."
