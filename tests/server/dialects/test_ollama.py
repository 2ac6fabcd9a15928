"""Ollama's routes over real HTTP: what they answer, and every row of its error table."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec.structs import replace

from cortex_embed.errors import TOO_LONG, ModelFileError, OverloadedError, TextError
from cortex_embed.server import lifecycle
from cortex_embed.wire import ollama
from tests.server.conftest import SPEC, TIMEOUT, FakeProvider, vector

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start

EMBED, EMBEDDINGS = "/api/embed", "/api/embeddings"
NAMED = ["/api/show", "/api/pull", "/api/generate", "/api/chat"]
POSTS = [EMBED, EMBEDDINGS, *NAMED]
GETS = ["/api/tags", "/api/ps", "/api/version"]
GOOD = {"model": "tiny", "input": "a", "prompt": "a"}


def unit(text: str) -> Any:
    row = np.array(vector(text), dtype=np.float64)
    return (row / np.linalg.norm(row)).astype(np.float32)


def error(body: bytes) -> str:
    document = json.loads(body)
    assert set(document) == {"error"}
    message: str = document["error"]
    return message


async def still_serving(running: Running) -> None:
    reply, body = await running.post(EMBED, GOOD)
    assert reply.status == 200
    np.testing.assert_array_equal(
        np.array(json.loads(body)["embeddings"], dtype=np.float32), [unit("a")]
    )


@pytest.mark.parametrize("name", ["tiny", "tiny:latest", "Small", "Maker/Tiny-Model"])
async def test_embed(running: Running, name: str) -> None:
    reply, body = await running.post(EMBED, {"model": name, "input": ["a", "b"]})
    assert reply.status == 200
    assert reply.content_type == "application/json"
    answer = json.loads(body)
    vectors = np.array(answer.pop("embeddings"), dtype=np.float32)
    np.testing.assert_array_equal(vectors, [unit("a"), unit("b")])
    golden = {"model": name, "total_duration": 0, "load_duration": 0, "prompt_eval_count": 2}
    assert answer == golden
    assert "X-Truncated" not in reply.headers


async def test_the_same_vector_over_both_formats_and_ours(running: Running) -> None:
    _, native = await running.post("/embed", {"texts": ["a"]})
    _, new = await running.post(EMBED, {"model": "tiny", "input": "a"})
    _, old = await running.post(EMBEDDINGS, {"model": "tiny", "prompt": "a"})
    (row,) = json.loads(native)["embeddings"]
    assert json.loads(new)["embeddings"] == [row]
    assert json.loads(old) == {"embedding": row}


async def test_dimensions(running: Running) -> None:
    _, body = await running.post(EMBED, {"model": "tiny", "input": "a", "dimensions": 3})
    (row,) = json.loads(body)["embeddings"]
    expected = unit("a")[:3] / np.linalg.norm(unit("a")[:3])
    np.testing.assert_allclose(row, expected, atol=1e-6)
    _, all_of_them = await running.post(EMBED, {"model": "tiny", "input": "a", "dimensions": 0})
    assert len(json.loads(all_of_them)["embeddings"][0]) == SPEC.dimensions


async def test_truncation_is_reported(running: Running) -> None:
    reply, body = await running.post(EMBED, {"model": "tiny", "input": ["a", "b" * 20]})
    assert reply.headers["X-Truncated-Indices"] == "1"
    assert json.loads(body)["truncated"] == [{"index": 1, "tokens": 20, "used": 16}]
    reply, body = await running.post(EMBEDDINGS, {"model": "tiny", "prompt": "b" * 20})
    assert reply.headers["X-Truncated"] == "1"
    assert json.loads(body)["truncated"] == [{"index": 0, "tokens": 20, "used": 16}]


@pytest.mark.parametrize(
    ("path", "fields", "golden"),
    [
        (EMBED, {}, b'{"model":"Small","embeddings":[]}'),
        (EMBED, {"input": None, "keep_alive": 0}, b'{"model":"Small","embeddings":[]}'),
        (EMBED, {"input": ""}, b'{"model":"Small","embeddings":[]}'),
        (EMBED, {"input": []}, b'{"model":"Small","embeddings":[]}'),
        (EMBEDDINGS, {}, b'{"embedding":[]}'),
        (EMBEDDINGS, {"prompt": ""}, b'{"embedding":[]}'),
    ],
)
async def test_ping(running: Running, path: str, fields: dict[str, Any], golden: bytes) -> None:
    reply, body = await running.post(path, {"model": "Small"} | fields)
    assert (reply.status, body) == (200, golden)
    assert not running.provider.started.is_set()


@pytest.mark.parametrize("path", GETS)
async def test_head_where_get_is(running: Running, path: str) -> None:
    reply, body = await running.get(path)
    assert reply.status == 200
    async with running.http.head(path) as head:
        assert head.status == 200
        assert int(head.headers["Content-Length"]) == len(body)


async def test_root_answers_the_probe(running: Running) -> None:
    async with running.http.head("/") as reply:
        assert reply.status == 200


async def test_models(running: Running) -> None:
    listed = json.loads((await running.get("/api/tags"))[1])["models"]
    assert [row["name"] for row in listed] == ["tiny:latest", "small:latest"]
    assert listed[0]["modified_at"] == "2025-10-26T17:33:20Z"
    (loaded,) = json.loads((await running.get("/api/ps"))[1])["models"]
    assert loaded["name"] == "tiny:latest"
    assert (loaded["context_length"], loaded["size_vram"]) == (16, 0)
    assert loaded["digest"] == listed[0]["digest"]
    for row in listed:
        for field in ("model", "name"):
            reply, body = await running.post("/api/show", {field: row["name"]})
            assert reply.status == 200
            shown = json.loads(body)
            assert shown["model_info"]["bert.embedding_length"] == SPEC.dimensions
            assert shown["capabilities"] == ["embedding"]
            assert shown["details"] == row["details"]


async def test_version(running: Running) -> None:
    assert json.loads((await running.get("/api/version"))[1]) == {"version": "0.33.0"}


async def test_pull_of_what_is_here(running: Running) -> None:
    for fields in ({}, {"stream": True}, {"stream": None}):
        reply, body = await running.post("/api/pull", {"model": "tiny"} | fields)
        assert reply.status == 200
        assert reply.content_type == "application/x-ndjson"
        lines = [json.loads(line)["status"] for line in body.splitlines()]
        assert (lines[0], lines[-1]) == ("pulling manifest", "success")
    reply, body = await running.post("/api/pull", {"name": "tiny", "stream": False})
    assert reply.content_type == "application/json"
    assert json.loads(body) == {"status": "success"}


@pytest.mark.parametrize("stream", [True, False])
async def test_pull_of_another_model(running: Running, stream: bool) -> None:
    reply, body = await running.post("/api/pull", {"model": "nope", "stream": stream})
    assert reply.status == 404
    assert error(body).startswith(
        "pull model manifest: file does not exist. The model 'nope' is not served here. "
        "Served: tiny. To serve another model too, start with --model NAME"
    )


@pytest.mark.parametrize("verb", ["generate", "chat"])
async def test_nothing_is_generated(running: Running, verb: str) -> None:
    reply, body = await running.post(f"/api/{verb}", {"model": "Small", "stream": True})
    assert reply.status == 400
    assert error(body) == (
        f'"Small" does not support {verb}: it is an embedding model. Use POST /api/embed.'
    )


@pytest.mark.parametrize("path", [path for path in POSTS if path != "/api/pull"])
async def test_unknown_model(running: Running, path: str) -> None:
    for fields in ({}, {"input": "a", "prompt": "a"}):
        reply, body = await running.post(path, {"model": "nope"} | fields)
        assert reply.status == 404
        assert error(body).startswith(
            'model "nope" not found, try pulling it first. '
            "The model 'nope' is not served here. Served: tiny."
        )
    await still_serving(running)


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "The body is empty; send JSON such as {"),
        (b'{"model": "tiny', "not valid JSON"),
        (b'{"model": "tiny\xff"}', "not UTF-8: byte 0xff"),
        (b"[]", "must be a JSON object"),
        (b'{"input": "a", "prompt": "a"}', 'model is required; add "model": "tiny"'),
        (b'{"model": null}', 'model is required; add "model": "tiny"'),
        (b'{"model": ["tiny"]}', "model: got a list; model must be the name of a served model"),
    ],
)
async def test_bad_bodies(running: Running, path: str, body: bytes, says: str) -> None:
    reply, answer = await running.post(path, body)
    assert reply.status == 400
    assert says in error(answer)
    await still_serving(running)


@pytest.mark.parametrize(
    ("path", "fields", "says"),
    [
        (EMBED, {"input": 5}, "input: got a number; input must be a text or a list of texts"),
        (EMBED, {"input": ["a", ""]}, "input[1] is empty; leave it out, or send a text."),
        (EMBED, {"input": "a\0"}, "input contains NUL (U+0000) at character 1"),
        (EMBED, {"input": ["a"] * 16385}, "input has 16385 texts; the limit is 16384"),
        (EMBED, {"input": "a", "dimensions": 9}, "dimensions is 9; tiny gives 1 to 8."),
        (EMBED, {"input": "a", "dimensions": -1}, "dimensions is -1; tiny gives 1 to 8."),
        (EMBED, {"input": "a", "dimensions": 10**30}, "dimensions: number out of range"),
        (EMBED, {"input": "a", "truncate": 1}, "truncate: got a number; truncate must be"),
        (EMBEDDINGS, {"prompt": ["a"]}, "prompt: got a list; prompt must be a text"),
        (EMBEDDINGS, {"prompt": "a\0"}, "prompt contains NUL"),
        (EMBEDDINGS, {"keep_alive": {}}, "keep_alive: got an object; keep_alive must be"),
    ],
)
async def test_bad_fields(running: Running, path: str, fields: dict[str, Any], says: str) -> None:
    reply, body = await running.post(path, {"model": "tiny"} | fields)
    assert reply.status == 400
    assert says in error(body)
    await still_serving(running)


async def test_too_long(running: Running, provider: FakeProvider) -> None:
    provider.failure = TextError(1, "the text has 20 tokens.", code=TOO_LONG)
    request = {"model": "tiny", "input": ["a", "b" * 20], "truncate": False}
    reply, body = await running.post(EMBED, request)
    assert reply.status == 400
    assert error(body) == (
        "the input length exceeds the context length: input[1]: the text has 20 tokens."
    )


@pytest.mark.parametrize("path", ["/api", "/api/", "/api/delete", "/api/embed/x"])
async def test_unknown_path(running: Running, path: str) -> None:
    reply, body = await running.post(path, GOOD)
    assert reply.status == 404
    assert f"There is nothing at {path}." in error(body)


@pytest.mark.parametrize("path", [*POSTS, *GETS])
async def test_wrong_method(running: Running, path: str) -> None:
    allowed = "POST" if path in POSTS else "GET, HEAD"
    async with running.http.delete(path) as reply:
        assert reply.status == 405
        assert reply.headers["Allow"] == allowed
        assert error(await reply.read()) == f"{path} answers {allowed}, not DELETE."


@pytest.mark.parametrize("path", POSTS)
async def test_body_over_the_limit(start: Start, path: str) -> None:
    async with start(max_body_bytes=1024) as running:
        reply, body = await running.post(path, {"model": "tiny", "input": "a" * 2000})
        assert reply.status == 413
        assert "the limit is 1024" in error(body)
        await still_serving(running)


@pytest.mark.parametrize("path", [EMBED, EMBEDDINGS])
async def test_overloaded(running: Running, provider: FakeProvider, path: str) -> None:
    provider.failure = OverloadedError("The queue is full.", retry_after=3)
    reply, body = await running.post(path, GOOD)
    assert reply.status == 503
    assert reply.headers["Retry-After"] == "3"
    assert error(body) == (
        "server busy, please try again.  maximum pending requests exceeded. The queue is full."
    )


@pytest.mark.parametrize("path", [*POSTS, *GETS])
async def test_without_the_token(start: Start, path: str) -> None:
    async with start(token="s3cret") as running:
        method = "POST" if path in POSTS else "GET"
        async with running.http.request(method, path) as reply:
            assert reply.status == 401
            assert "Authorization: Bearer" in error(await reply.read())


@pytest.mark.parametrize("body", [GOOD, {"model": "tiny"}])
@pytest.mark.parametrize("path", [EMBED, EMBEDDINGS])
async def test_loading_blocks_then_answers(
    start: Start, provider: FakeProvider, path: str, body: object
) -> None:
    """Ollama's clients do not retry. An unknown model is told at once; lists need no model."""
    provider.load_gate.clear()
    async with start() as running:
        early = asyncio.get_running_loop().create_task(running.post(path, body))
        reply, _ = await running.post(path, {"model": "nope", "input": "a", "prompt": "a"})
        assert reply.status == 404
        assert json.loads((await running.get("/api/ps"))[1]) == {"models": []}
        assert len(json.loads((await running.get("/api/tags"))[1])["models"]) == 2
        assert not early.done()
        provider.load_gate.set()
        reply, _ = await asyncio.wait_for(early, TIMEOUT)
        assert reply.status == 200


@pytest.mark.parametrize("body", [GOOD, {}])
@pytest.mark.parametrize("path", [EMBED, EMBEDDINGS])
async def test_another_model_is_loaded_while_they_wait(
    start: Start, path: str, body: dict[str, str]
) -> None:
    other = FakeProvider(replace(SPEC, id="other", repo="Maker/Other", aliases=()))
    other.load_gate.clear()

    async def loaded(running: Running) -> list[str]:
        rows = json.loads((await running.get("/api/ps"))[1])["models"]
        return [row["name"] for row in rows]

    async with start(others=[other]) as running:
        asking = asyncio.create_task(running.post(path, body | {"model": "other:latest"}))
        assert (await running.post(path, body | {"model": "tiny"}))[0].status == 200
        assert await loaded(running) == ["tiny:latest"]
        assert len(json.loads((await running.get("/api/tags"))[1])["models"]) == 3
        assert not asking.done()
        other.load_gate.set()
        assert (await asking)[0].status == 200
        assert await loaded(running) == ["tiny:latest", "other:latest"]
    lost = FakeProvider(other.spec)
    lost.load_failure = ModelFileError("/secret is damaged.")
    async with start(others=[lost]) as running:
        reply, answer = await running.post(path, body | {"model": "other"})
        assert reply.status == 500
        assert "The model other could not be loaded" in error(answer)
        assert await loaded(running) == ["tiny:latest"]
        await still_serving(running)


@pytest.mark.parametrize("path", [EMBED, EMBEDDINGS])
async def test_a_ping_does_not_call_a_model_loaded_that_is_not(
    start: Start, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(ollama.EMBED, "LOAD_WAIT", 0.05)
    monkeypatch.setattr(ollama.EMBEDDINGS, "LOAD_WAIT", 0.05)
    other = FakeProvider(replace(SPEC, id="other", repo="Maker/Other", aliases=()))
    other.load_gate.clear()
    async with start(others=[other]) as running:
        reply, answer = await running.post(path, {"model": "other"})
        assert (reply.status, reply.headers["X-Phase"]) == (503, "loading")
        assert "not loaded" in error(answer)
        other.load_gate.set()


@pytest.mark.parametrize("body", [GOOD, {"model": "tiny"}])
@pytest.mark.parametrize("path", [EMBED, EMBEDDINGS])
async def test_a_load_that_never_ends_well(
    start: Start,
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    body: object,
) -> None:
    """Who waits for the model when the server is stopped is told so."""
    monkeypatch.setattr(lifecycle, "leave", lambda _code: None)
    provider.load_gate.clear()
    async with start() as running:
        early = asyncio.get_running_loop().create_task(running.post(path, body))
        await running.get("/api/ps")
        running.server.stop()
        reply, answer = await asyncio.wait_for(early, TIMEOUT)
        assert reply.status == 503
        assert reply.headers["X-Phase"] == "draining"
        assert error(answer)


@pytest.mark.parametrize("path", POSTS)
async def test_draining(start: Start, provider: FakeProvider, path: str) -> None:
    provider.gate.clear()
    async with start() as running:
        reader, writer = await running.raw()
        # The connection stands before the drain: afterwards none is accepted.
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}")
        slow = asyncio.get_running_loop().create_task(running.post(EMBED, GOOD))
        await asyncio.wait_for(provider.started.wait(), TIMEOUT)
        running.server.stop()
        await asyncio.wait_for(running.report.is_draining.wait(), TIMEOUT)
        await asyncio.sleep(0)
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 17\r\n\r\n"
        writer.write(head.encode() + b'{"model": "tiny"}')
        answer = await asyncio.wait_for(reader.read(), TIMEOUT)
        status, _, rest = answer.partition(b"\r\n")
        assert b" 503 " in status
        assert b"Retry-After: 1" in rest
        assert "stopping" in error(rest.partition(b"\r\n\r\n")[2])
        writer.close()
        provider.gate.set()
        reply, _ = await asyncio.wait_for(slow, TIMEOUT)
        assert reply.status == 200
