"""OpenAI's list of models over real HTTP; Voyage's and Jina's words on its path: the vectors of
/embed, and every row of their error table."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec.structs import replace

from cortex_embed.errors import EngineError, OverloadedError, TextError
from cortex_embed.vectors import quantize
from tests.server.conftest import FINGERPRINT, SPEC, FakeProvider

if TYPE_CHECKING:
    from cortex_embed.vectors import Dtype
    from tests.server.conftest import Running, Start

VOYAGE = {"model": "tiny", "input": ["a", "b"], "truncation": True, "output_dtype": None}
JINA = {"model": "tiny", "input": [{"text": "a"}, {"text": "b"}], "task": "text-matching"}
VENDORS = pytest.mark.parametrize("good", [VOYAGE, JINA], ids=["voyage", "jina"])


@pytest.mark.parametrize("base", ["/v1/models", "/models"])
async def test_models(running: Running, base: str) -> None:
    listing = json.loads((await running.get(base))[1])
    assert listing["object"] == "list"
    (model,) = listing["data"]
    assert model["id"] == SPEC.id
    assert (model["object"], model["owned_by"]) == ("model", "cortex-embed")
    assert (model["dimensions"], model["max_tokens"]) == (SPEC.dimensions, SPEC.max_tokens)
    assert (model["fingerprint"], model["loaded"]) == (FINGERPRINT, True)
    for name in ("tiny", "Maker/Tiny-Model", "Maker%2FTiny-Model", "small"):
        async with running.http.get(f"{base}/{name}") as reply:
            assert reply.status == 200
            assert await reply.json() == model


async def test_models_are_listed_whether_loaded_or_not(start: Start) -> None:
    other = FakeProvider(replace(SPEC, id="other", repo="Maker/Other", aliases=()))
    async with start(others=[other], load_wait=5.0) as running:

        async def loaded() -> dict[str, bool]:
            listing = json.loads((await running.get("/v1/models"))[1])["data"]
            return {model["id"]: model["loaded"] for model in listing}

        assert await loaded() == {"tiny": True, "other": False}
        body = {"model": "Maker/Other", "input": "x"}
        assert (await running.post("/v1/embeddings", body))[0].status == 200
        assert await loaded() == {"tiny": True, "other": True}


async def vectors(running: Running, **fields: object) -> Any:
    _, body = await running.post("/embed", {"texts": ["a", "b"], **fields})
    return json.loads(body)["embeddings"]


async def rows(running: Running, **fields: object) -> list[Any]:
    reply, body = await running.post("/v1/embeddings", fields)
    assert reply.status == 200, body
    return [item["embedding"] for item in json.loads(body)["data"]]


@pytest.mark.parametrize(
    ("said", "mode"),
    [
        ({"input_type": "query"}, "query"),
        ({"input_type": "passage"}, "passage"),
        ({"task": "retrieval.query"}, "query"),
        ({"task": "retrieval.passage"}, "passage"),
        ({"task": "separation"}, None),
        ({}, None),
    ],
)
async def test_stated_intent(running: Running, said: dict[str, str], mode: str | None) -> None:
    expected = await vectors(running, mode=mode)
    for good in (VOYAGE, JINA):
        assert await rows(running, **{**good, "task": None, **said}) == expected


@pytest.mark.parametrize("dtype", ["float", "int8", "uint8", "binary", "ubinary"])
async def test_types(running: Running, dtype: Dtype) -> None:
    """Voyage's `output_dtype` in both encodings, Jina's `embedding_type`: the same numbers."""
    expected = quantize(np.array(await vectors(running), np.float32), dtype)
    written = [
        await rows(running, **VOYAGE | {"output_dtype": dtype}),
        await rows(running, **JINA, embedding_type=dtype),
        [row[dtype] for row in await rows(running, **JINA, embedding_type=[dtype, "base64"])],
    ]
    for numbers in written:
        np.testing.assert_array_equal(np.array(numbers, expected.dtype), expected)
    encoded = await rows(running, **VOYAGE | {"output_dtype": dtype, "encoding_format": "base64"})
    buffers = [np.frombuffer(base64.b64decode(text), expected.dtype) for text in encoded]
    np.testing.assert_array_equal(buffers, expected)


async def test_truncation_is_in_the_body_only_where_there_was_some(running: Running) -> None:
    _, body = await running.post("/v1/embeddings", {"model": "tiny", "input": ["a", "x" * 17]})
    assert json.loads(body)["truncated"] == [{"index": 1, "tokens": 17, "used": 16}]
    _, body = await running.post("/v1/embeddings", {"model": "tiny", "input": ["a"]})
    assert set(json.loads(body)) == {"object", "data", "model", "usage"}


def detail(body: bytes) -> str:
    """Voyage's and Jina's error, which stands beside OpenAI's."""
    document = json.loads(body)
    assert set(document) == {"error", "detail"}
    assert set(document["error"]) == {"message", "type", "param", "code"}
    assert document["error"]["message"] == document["detail"]
    return str(document["detail"])


@VENDORS
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"input": []}, "input is empty; send at least one text"),
        ({"input": None}, "input: got null; input must be"),
        ({"input": ["a", ""]}, "input[1] is empty"),
        ({"input": ["a"] * 16385}, "input has 16385 texts; the limit is 16384"),
        (
            {"input": [{"image": "x"}]},
            "input[0]: got an object that is no text; there are no images",
        ),
        ({"input_type": "search_query"}, "input_type: got 'search_query'; input_type must be"),
        ({"task": "retrieval"}, "task: got 'retrieval'; task must be"),
        ({"late_chunking": True}, "late_chunking: got true, which is not supported"),
        ({"output_dimension": 9}, "output_dimension is 9; tiny gives 1 to 8"),
        ({"dimensions": 3, "output_dimension": 2}, "dimensions is 3 but output_dimension is 2"),
        ({"output_dtype": "int4"}, "output_dtype: got 'int4'"),
    ],
)
async def test_bad_input(
    running: Running, good: dict[str, Any], more: dict[str, Any], says: str
) -> None:
    reply, body = await running.post("/v1/embeddings", {**good, **more})
    assert reply.status == 400
    assert says in detail(body)
    assert (await running.post("/v1/embeddings", good))[0].status == 200


@VENDORS
async def test_malformed(running: Running, good: dict[str, Any]) -> None:
    """No field can be read, so nobody knows whose it is: 400, which all their clients know."""
    reply, body = await running.post("/v1/embeddings", json.dumps(good).encode()[:-1])
    assert reply.status == 400
    assert "not valid JSON" in detail(body)


@VENDORS
async def test_too_long(running: Running, provider: FakeProvider, good: dict[str, Any]) -> None:
    provider.failure = TextError(1, "has 17 tokens; the limit is 16")
    reply, body = await running.post("/v1/embeddings", {**good, "truncation": False})
    assert reply.status == 400
    assert detail(body) == "input[1]: has 17 tokens; the limit is 16"


@VENDORS
async def test_unknown_model_is_a_400(running: Running, good: dict[str, Any]) -> None:
    """OpenAI's is a 404, which voyageai would report as an unknown APIError."""
    reply, body = await running.post("/v1/embeddings", {**good, "model": "voyage-3"})
    assert reply.status == 400
    assert detail(body).startswith("The model 'voyage-3' is not served here. Served: tiny.")
    plain = {"model": "voyage-3", "input": "a"}
    assert (await running.post("/v1/embeddings", plain))[0].status == 404


@VENDORS
async def test_overloaded(running: Running, provider: FakeProvider, good: dict[str, Any]) -> None:
    provider.failure = OverloadedError("The queue is full.", retry_after=3)
    reply, body = await running.post("/v1/embeddings", good)
    assert (reply.status, reply.headers["Retry-After"]) == (429, "3")
    assert detail(body) == "The queue is full."


@VENDORS
async def test_loading(start: Start, provider: FakeProvider, good: dict[str, Any]) -> None:
    provider.load_gate.clear()
    async with start() as running:
        reply, body = await running.post("/v1/embeddings", good)
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert detail(body) == "The model is loading; try again shortly."


@VENDORS
async def test_bad_key(start: Start, good: dict[str, Any]) -> None:
    async with start(token="right") as running:
        reply, body = await running.post("/v1/embeddings", good)
        assert reply.status == 401
        assert "Authorization: Bearer" in detail(body)


@VENDORS
async def test_body_over_the_limit(start: Start, good: dict[str, Any]) -> None:
    async with start(max_body_bytes=1024) as running:
        reply, body = await running.post("/v1/embeddings", {**good, "user": "x" * 2000})
        assert reply.status == 413
        assert "1024" in detail(body)


@VENDORS
async def test_our_own_failure(
    running: Running, provider: FakeProvider, good: dict[str, Any]
) -> None:
    provider.failure = EngineError("The runtime failed.")
    reply, body = await running.post("/v1/embeddings", good)
    assert reply.status == 500
    assert detail(body) == "The runtime failed."
