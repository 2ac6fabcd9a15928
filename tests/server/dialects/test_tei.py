"""TEI's own routes over real HTTP, and every error of its table in its own words."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cortex_embed import __version__
from cortex_embed.errors import EngineError, OverloadedError, TextError, UnsupportedError
from tests.server.conftest import FINGERPRINT, vector

if TYPE_CHECKING:
    from tests.server.conftest import FakeProvider, Running, Start

PAIR = {"source_sentence": "a", "sentences": ["b", "c"]}
GOOD: dict[str, dict[str, Any]] = {
    "/embed": {"inputs": "a"},
    "/": {"inputs": "a"},
    "/embed_all": {"inputs": "a"},
    "/similarity": {"inputs": PAIR},
    "/tokenize": {"inputs": "a"},
    "/decode": {"ids": [97]},
}
EVERY = pytest.mark.parametrize("path", GOOD)


def unit(text: str) -> Any:
    row = np.array(vector(text))
    return row / np.linalg.norm(row)


def error(body: bytes) -> tuple[str, str]:
    document = json.loads(body)
    assert set(document) == {"error", "error_type"}
    return document["error"], document["error_type"]


async def test_similarity(running: Running) -> None:
    reply, body = await running.post("/similarity", {"inputs": PAIR})
    assert reply.status == 200
    expected = [unit("a") @ unit("b"), unit("a") @ unit("c")]
    np.testing.assert_allclose(json.loads(body), expected, atol=1e-6)
    long = {"source_sentence": "s" * 20, "sentences": ["a", "t" * 30]}
    reply, _ = await running.post("/similarity", {"inputs": long})
    assert reply.headers["X-Truncated-Indices"] == "0,2"


async def test_embed_all(running: Running) -> None:
    reply, body = await running.post("/embed_all", {"inputs": ["ab", "c"]})
    assert reply.status == 200
    assert json.loads(body) == [[vector("a"), vector("b")], [vector("c")]]
    _, body = await running.post("/embed_all", {"inputs": "b", "prompt_name": "query"})
    assert json.loads(body) == [[vector(c) for c in "query: b"]]


async def test_a_large_embed_all_leaves_the_loop_free(running: Running) -> None:
    many = {"inputs": ["x" * 100] * 200}
    wide = asyncio.get_running_loop().create_task(running.post("/embed_all", many))
    assert (await running.get("/livez"))[0].status == 200
    reply, body = await wide
    assert reply.status == 200
    assert [len(text) for text in json.loads(body)] == [100] * 200


async def test_tokenize_and_decode(running: Running) -> None:
    reply, body = await running.post("/tokenize", {"inputs": ["hi", "x"]})
    assert reply.status == 200
    special = {"id": 1, "text": "[CLS]", "special": True, "start": None, "stop": None}
    assert json.loads(body) == [
        [
            special,
            {"id": 104, "text": "h", "special": False, "start": 0, "stop": 1},
            {"id": 105, "text": "i", "special": False, "start": 1, "stop": 2},
        ],
        [special, {"id": 120, "text": "x", "special": False, "start": 0, "stop": 1}],
    ]
    _, body = await running.post("/tokenize", {"inputs": "hi", "add_special_tokens": False})
    ids = [token["id"] for token in json.loads(body)[0]]
    assert ids == [104, 105]
    _, body = await running.post("/decode", {"ids": [1, *ids]})
    assert json.loads(body) == ["hi"]
    _, body = await running.post("/decode", {"ids": [ids, [1]], "skip_special_tokens": False})
    assert json.loads(body) == ["hi", "\x01"]


async def test_many_tokens_are_encoded_in_a_thread(running: Running) -> None:
    reply, body = await running.post("/tokenize", {"inputs": ["y" * 1000] * 30})
    assert reply.status == 200
    assert sum(map(len, json.loads(body))) == 30_030


async def test_info(start: Start) -> None:
    async with start(max_inputs=64, on_overlong="error", max_queue_tokens=1600) as running:
        reply, body = await running.get("/info")
    assert reply.status == 200
    assert json.loads(body) == {
        "model_id": "Maker/Tiny-Model",
        "model_sha": "0",
        "model_dtype": "float32",
        "served_model_name": "tiny",
        "model_type": {"embedding": {"pooling": "cls"}},
        "max_concurrent_requests": 100,
        "max_input_length": 16,
        "max_batch_tokens": 256,
        "max_batch_requests": None,
        "max_client_batch_size": 64,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": __version__,
        "sha": None,
        "docker_label": None,
        "dimensions": 8,
        "fingerprint": FINGERPRINT,
    }


async def test_health_says_when_and_needs_no_token(start: Start, provider: FakeProvider) -> None:
    provider.load_gate.clear()
    async with start(token="s3cret") as running:
        reply, body = await running.get("/health")
        assert reply.status == 503
        assert error(body) == ("unhealthy", "Unhealthy")
        assert (reply.headers["Retry-After"], reply.headers["X-Phase"]) == ("1", "loading")
        provider.load_gate.set()
        await asyncio.wait_for(running.report.is_ready.wait(), 5)
        reply, body = await running.get("/health")
        assert (reply.status, body) == (200, b"")


# The table of errors, row by row.


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("/embed", {"inputs": ["a", ""]}, "inputs[1] is empty"),
        ("/embed", {"inputs": "a\0b"}, "inputs contains NUL"),
        ("/embed", {"inputs": "a" * 2_000_000}, "inputs has 2000000 characters; the limit is"),
        ("/embed", {"inputs": ["a"] * 16385}, "inputs has 16385 texts; the limit is 16384"),
        ("/embed", {"inputs": 5}, "inputs: got a number"),
        ("/embed", {"inputs": ["a", {}]}, "inputs[1]: got an object"),
        ("/embed", {"inputs": "a", "dimensions": 0}, "dimensions is 0; tiny gives 1 to 8"),
        ("/embed", {"inputs": "a", "dimensions": 9}, "dimensions is 9; tiny gives 1 to 8"),
        ("/embed", {"inputs": "a", "prompt_name": "s2p"}, "prompt_name: got 's2p'"),
        ("/embed", {"inputs": "a", "truncation_direction": "up"}, "truncation_direction: got 'up'"),
        ("/embed", b'{"inputs": "\\ud800"}', "lone surrogate (U+D800)"),
        ("/", {"inputs": {"source_sentence": 1}}, "inputs.source_sentence: got a number"),
        (
            "/similarity",
            {"inputs": PAIR | {"sentences": ["b", ""]}},
            "inputs.sentences[1] is empty",
        ),
        ("/similarity", {"inputs": PAIR | {"sentences": ["b"] * 16384}}, "inputs has 16385 texts"),
        ("/similarity", {"inputs": "a"}, "inputs: got a string"),
        ("/similarity", b"", "body is empty"),
        ("/embed_all", b'{"inputs": ', "not valid JSON"),
        ("/embed", b'{"inputs": ', "not valid JSON"),
        ("/", b'{"inputs": "a"', "not valid JSON"),
        ("/embed_all", {"inputs": [""]}, "inputs[0] is empty"),
        ("/tokenize", b"{}", "inputs is missing"),
        ("/tokenize", {"inputs": [5]}, "inputs[0]: got a number"),
        ("/tokenize", {"inputs": ["a" * 150_000] * 2}, "inputs has 300000 characters in all"),
        ("/decode", {"ids": "a"}, "ids: got a string"),
        ("/decode", {"ids": [[]]}, "ids[0] is empty"),
    ],
)
async def test_bad_input_is_422(running: Running, path: str, sent: object, says: str) -> None:
    reply, body = await running.post(path, sent)
    assert reply.status == 422
    message, kind = error(body)
    assert kind == "Validation"
    assert says in message
    assert len(message) < 400
    reply, _ = await running.post(path, GOOD[path])
    assert reply.status == 200


@pytest.mark.parametrize(
    ("path", "sent", "field"),
    [
        ("/embed", {"inputs": []}, "inputs"),
        ("/", {"inputs": []}, "inputs"),
        ("/embed_all", {"inputs": []}, "inputs"),
        ("/similarity", {"inputs": PAIR | {"sentences": []}}, "inputs.sentences"),
        ("/tokenize", {"inputs": []}, "inputs"),
        ("/decode", {"ids": []}, "ids"),
    ],
)
async def test_nothing_is_400(running: Running, path: str, sent: object, field: str) -> None:
    reply, body = await running.post(path, sent)
    assert reply.status == 400
    message, kind = error(body)
    assert kind == "Empty"
    assert message.startswith(f"`{field}` cannot be empty")


@pytest.mark.parametrize("path", ["/embed", "/", "/embed_all", "/similarity", "/decode"])
@pytest.mark.parametrize(
    "case",
    [
        (OverloadedError("The queue is full.", retry_after=3), 429, "Overloaded"),
        (EngineError("The runtime failed."), 424, "Backend"),
        (UnsupportedError("No such thing."), 422, "Validation"),
        (RuntimeError("a secret"), 500, "Backend"),
    ],
)
async def test_failures(
    running: Running, provider: FakeProvider, path: str, case: tuple[Exception, int, str]
) -> None:
    failure, status, kind = case
    provider.failure = failure
    reply, body = await running.post(path, GOOD[path])
    assert reply.status == status
    message, word = error(body)
    assert word == kind
    assert "secret" not in message
    assert reply.headers.get("Retry-After") == ("3" if status == 429 else None)


@pytest.mark.parametrize(
    ("path", "where"),
    [("/embed", "inputs"), ("/embed_all", "inputs"), ("/similarity", "inputs.source_sentence")],
)
async def test_too_long_without_truncation_is_422(
    running: Running, provider: FakeProvider, path: str, where: str
) -> None:
    provider.failure = TextError(0, "the text has 17 tokens; this model reads at most 16.")
    reply, body = await running.post(path, GOOD[path] | {"truncate": False})
    assert reply.status == 422
    said = f"{where}: the text has 17 tokens; this model reads at most 16."
    assert error(body) == (said, "Validation")


@EVERY
async def test_loading_is_503(start: Start, provider: FakeProvider, path: str) -> None:
    provider.load_gate.clear()
    async with start() as running:
        reply, body = await running.post(path, GOOD[path])
        assert reply.status == 503
        assert reply.headers["Retry-After"] == "1"
        assert error(body)[1] == "Unhealthy"


@EVERY
async def test_loading_is_waited_for_where_that_is_set(
    start: Start, provider: FakeProvider, path: str
) -> None:
    provider.load_gate.clear()
    async with start(load_wait=10.0) as running:
        asked = asyncio.get_running_loop().create_task(running.post(path, GOOD[path]))
        await asyncio.sleep(0.05)
        assert not asked.done()
        provider.load_gate.set()
        reply, _ = await asked
        assert reply.status == 200


@pytest.mark.parametrize("path", ["/embed_all", "/similarity", "/tokenize", "/decode"])
async def test_refused_before_the_body_is_read(start: Start, path: str) -> None:
    async with start(token="s3cret", max_body_bytes=1024, body_timeout=0.2) as running:
        reply, body = await running.post(path, GOOD[path])
        assert reply.status == 401
        assert error(body)[1] == "Validation"
        auth = {"Authorization": "Bearer s3cret"}
        reply, body = await running.post(path, b" " * 2000, headers=auth)
        assert reply.status == 413
        assert error(body)[1] == "Validation"
        reader, writer = await running.raw()
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer s3cret\r\n"
        writer.write(f"{head}Content-Length: 99\r\n\r\n{{".encode())
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert error(answer.partition(b"\r\n\r\n")[2])[1] == "Validation"
        writer.close()
        async with running.http.put(path, headers=auth) as wrong:
            assert wrong.status == 405
            assert wrong.headers["Allow"] == "POST"
            assert error(await wrong.read())[1] == "Validation"
