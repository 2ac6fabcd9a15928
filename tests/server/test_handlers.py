"""Every route over real HTTP: what it answers when all is well."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from msgspec.structs import replace

from cortex_embed.domain import OpenAIIds
from cortex_embed.errors import ModelFileError
from tests.server.conftest import FINGERPRINT, SPEC, FakeProvider, vector

if TYPE_CHECKING:
    from cortex_embed.domain import Text
    from tests.server.conftest import Running, Start


def unit(text: Text, prefix: str = "") -> Any:
    row = np.array(vector(text, prefix))
    return row / np.linalg.norm(row)


@pytest.mark.parametrize("path", ["/", "/livez", "/readyz", "/model_info", "/v1/models", "/models"])
async def test_head_where_get_is(running: Running, path: str) -> None:
    _, body = await running.get(path)
    async with running.http.head(path) as reply:
        assert reply.status == 200
        assert int(reply.headers["Content-Length"]) == len(body)
        assert await reply.read() == b""


@pytest.mark.parametrize(
    ("mode", "prefix"), [(None, ""), ("query", "query: "), ("passage", ""), ("document", "")]
)
async def test_embed(running: Running, mode: str | None, prefix: str) -> None:
    reply, body = await running.post("/embed", {"texts": ["a", "b"], "mode": mode})
    assert reply.status == 200
    answer = json.loads(body)
    np.testing.assert_allclose(
        answer["embeddings"], [unit("a", prefix), unit("b", prefix)], atol=1e-7
    )
    assert answer["model"] == "tiny"
    assert answer["dimensions"] == 8
    assert "truncated" not in answer
    assert "X-Truncated" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
@pytest.mark.parametrize("name", ["tiny", "TINY", "small", "Maker/Tiny-Model", "tiny:latest"])
async def test_openai_by_any_name(running: Running, path: str, name: str) -> None:
    reply, body = await running.post(path, {"model": name, "input": ["a", "b"]})
    assert reply.status == 200
    answer = json.loads(body)
    assert answer["model"] == "tiny"
    assert answer["object"] == "list"
    assert answer["usage"] == {"prompt_tokens": 2, "total_tokens": 2}
    assert [item["index"] for item in answer["data"]] == [0, 1]
    np.testing.assert_allclose(answer["data"][1]["embedding"], unit("b"), atol=1e-7)


@pytest.mark.parametrize(
    ("sent", "texts"),
    [("a", ["a"]), (["a"], ["a"]), ([5, 6], [(5, 6)]), ([[5], [6]], [(5,), (6,)])],
)
async def test_openai_inputs_and_formats(running: Running, sent: object, texts: list[Text]) -> None:
    for encoding in ("float", "base64"):
        request = {"model": "tiny", "input": sent, "encoding_format": encoding}
        _, body = await running.post("/v1/embeddings", request)
        rows = [item["embedding"] for item in json.loads(body)["data"]]
        if encoding == "base64":
            rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
        np.testing.assert_allclose(rows, [unit(text) for text in texts], atol=1e-7)


async def test_dimensions_shorten_and_renormalize(running: Running) -> None:
    _, short = await running.post("/embed", {"texts": ["a"], "dimensions": 3})
    (row,) = json.loads(short)["embeddings"]
    expected = unit("a")[:3] / np.linalg.norm(unit("a")[:3])
    np.testing.assert_allclose(row, expected, atol=1e-6)
    _, raw = await running.post("/embed", {"texts": ["a"], "normalize": False})
    np.testing.assert_allclose(json.loads(raw)["embeddings"], [vector("a")])


async def test_ids_read_in_another_vocabulary_are_announced(running: Running) -> None:
    body = {"model": "tiny", "input": [[15339, 1917]]}
    reply, _ = await running.post("/v1/embeddings", body)
    assert "X-Token-Ids" not in reply.headers
    running.provider.read_as = "cl100k_base"
    reply, _ = await running.post("/v1/embeddings", body)
    assert reply.headers["X-Token-Ids"] == "cl100k_base"


async def test_truncation_is_reported(running: Running) -> None:
    texts = ["short", "x" * 17, "y" * 40]
    reply, body = await running.post("/embed", {"texts": texts})
    assert reply.headers["X-Truncated"] == "2"
    assert reply.headers["X-Truncated-Indices"] == "1,2"
    assert json.loads(body)["truncated"] == [
        {"index": 1, "tokens": 17, "used": 16},
        {"index": 2, "tokens": 40, "used": 16},
    ]
    reply, _ = await running.post("/v1/embeddings", {"model": "tiny", "input": ["z" * 20] * 300})
    assert reply.headers["X-Truncated"] == "300"
    assert reply.headers["X-Truncated-Indices"].count(",") == 99


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "!?", None]
)
async def test_content_type_does_not_matter(running: Running, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    reply, _ = await running.post("/embed", b'{"texts": ["a"]}', headers=headers)
    assert reply.status == 200


async def test_compressed_body(running: Running) -> None:
    body = gzip.compress(b'{"texts": ["a"]}')
    reply, _ = await running.post("/embed", body, headers={"Content-Encoding": "gzip"})
    assert reply.status == 200


async def test_large_reply_leaves_the_loop_free(start: Start) -> None:
    """2,048 texts: the encoding runs in a thread, in slices, and others are answered."""
    async with start() as running:
        body = {"texts": [f"text {n}" for n in range(2048)], "normalize": False}
        wide = asyncio.get_running_loop().create_task(running.post("/embed", body))
        reply, _ = await running.get("/livez")
        assert reply.status == 200
        reply, answer = await wide
        assert reply.status == 200
        assert len(json.loads(answer)["embeddings"]) == 2048


PATHS = {"/embed": "texts", "/v1/embeddings": "input"}


def another(name: str = "other") -> FakeProvider:
    return FakeProvider(replace(SPEC, id=name, repo=f"Maker/{name}", aliases=()))


@pytest.mark.parametrize("path", PATHS)
async def test_another_model_is_loaded_on_its_first_request(start: Start, path: str) -> None:
    other = another()
    other.load_gate.clear()
    body = {"model": "other", PATHS[path]: ["x"]}
    async with start(others=[other]) as running:
        reply, _ = await running.post(path, body)
        assert (reply.status, reply.headers["Retry-After"]) == (503, "1")
        assert reply.headers["X-Phase"] == "loading"
        assert (await running.get("/readyz"))[0].status == 200  # that is about the default model
        assert (await running.post(path, body | {"model": "tiny"}))[0].status == 200
        other.load_gate.set()
        while (await running.post(path, body))[0].status == 503:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert (await running.post(path, body))[0].status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_load_wait_is_for_every_model(start: Start, path: str) -> None:
    other = another()
    other.load_gate.clear()
    body = {"model": "other", PATHS[path]: ["x"]}
    async with start(others=[other], load_wait=10.0) as running:
        asking = [asyncio.create_task(running.post(path, body)) for _ in range(20)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in asking)
        other.load_gate.set()
        assert {reply.status for reply, _ in await asyncio.gather(*asking)} == {200}
    async with start(others=[stuck := another()], load_wait=0.1) as running:
        stuck.load_gate.clear()
        assert (await running.post(path, body))[0].status == 503


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_that_cannot_be_loaded_harms_no_other(start: Start, path: str) -> None:
    other = another()
    other.load_failure = ModelFileError("/secret is damaged.")
    body = {"model": "other", PATHS[path]: ["x"]}
    async with start(others=[other], load_wait=10.0) as running:
        reply, told = await running.post(path, body)
        assert reply.status == 500
        assert b"The model other could not be loaded" in told
        assert b"secret" not in told
        assert (await running.post(path, body | {"model": "tiny"}))[0].status == 200
        other.load_failure = None
        assert (await running.post(path, body))[0].status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_model_that_is_not_served_is_not_answered_by_another(
    start: Start, path: str
) -> None:
    async with start(others=[another()], load_wait=10.0) as running:
        reply, told = await running.post(path, {"model": "bge-m3", PATHS[path]: ["x"]})
        assert reply.status == 404
        assert b"Served: tiny, other. To serve another model too, start with --model" in told


async def test_a_stop_while_another_model_loads(start: Start) -> None:
    other = another()
    async with start(others=[other], load_wait=10.0) as running:
        other.gate.clear()
        asking = asyncio.create_task(running.post("/embed", {"model": "other", "texts": ["x"]}))
        await other.started.wait()
        running.server.stop()
        other.gate.set()
        reply, _ = await asking
        assert reply.status == 200
        assert await running.task == 0
        assert other.closed


@pytest.mark.parametrize(
    ("path", "body"),
    [("/embed", {"texts": ["a"]}), ("/v1/embeddings", {"model": "tiny", "input": "a"})],
)
async def test_the_fingerprint_travels_with_every_answer(
    running: Running, path: str, body: dict[str, object]
) -> None:
    name = "If-Embedding-Fingerprint"
    for given in (None, FINGERPRINT, f'"{FINGERPRINT}"', "*", f'"cx1:other", "{FINGERPRINT}"'):
        reply, _ = await running.post(path, body, headers={name: given} if given else {})
        assert reply.status == 200, given
        assert reply.headers["X-Embedding-Fingerprint"] == FINGERPRINT
    several = [(name, "cx1:other"), (name, FINGERPRINT)]
    assert (await running.post(path, body, headers=several))[0].status == 200


@pytest.mark.parametrize("given", ["cx1:other", "", '""', FINGERPRINT[:-1], "cx1:" + "x" * 4000])
async def test_another_fingerprint_is_a_precondition_that_fails(
    running: Running, given: str
) -> None:
    headers = {"If-Embedding-Fingerprint": given}
    reply, body = await running.post("/embed", {"texts": ["a"]}, headers=headers)
    assert reply.status == 412
    error = json.loads(body)
    assert error["code"] == "fingerprint_mismatch"
    assert FINGERPRINT in error["error"]
    assert given[:100] in error["error"]
    assert len(error["error"]) < 700
    assert "embed the index again" in error["error"]
    openai, body = await running.post(
        "/v1/embeddings", {"model": "tiny", "input": "a"}, headers=headers
    )
    assert openai.status == 412
    assert json.loads(body)["error"]["code"] == "fingerprint_mismatch"
    unknown, _ = await running.post("/embed", {"texts": ["a"], "model": "no"}, headers=headers)
    assert unknown.status == 404
    assert (await running.post("/embed", {"texts": ["a"]}))[0].status == 200


async def test_a_mismatch_is_known_before_the_model_is_loaded(
    start: Start, provider: FakeProvider
) -> None:
    provider.load_gate.clear()
    async with start(load_wait=60.0) as running:
        headers = {"If-Embedding-Fingerprint": "cx1:other"}
        reply, _ = await running.post("/embed", {"texts": ["a"]}, headers=headers)
        assert reply.status == 412


async def test_ids_of_openais_own_client_are_known_as_such(
    running: Running, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[type] = []
    embed = provider.embed

    async def watched(texts: Any, **options: Any) -> Any:
        seen.extend(map(type, texts))
        return await embed(texts, **options)

    monkeypatch.setattr(provider, "embed", watched)
    for sent in ([[1, 2], [3]], ["a"]):
        for headers in ({}, {"X-Stainless-Lang": "python"}):
            body = {"model": "tiny", "input": sent}
            reply, _ = await running.post("/v1/embeddings", body, headers=headers)
            assert reply.status == 200
    assert seen == [tuple, tuple, OpenAIIds, OpenAIIds, str, str]
