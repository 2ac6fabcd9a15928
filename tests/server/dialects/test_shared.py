"""`POST /embed` and `POST /` over real HTTP: whose words a body uses, and whose its error is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cortex_embed.errors import EngineError, OverloadedError
from tests.server.conftest import vector

if TYPE_CHECKING:
    from cortex_embed.domain import Text
    from tests.server.conftest import FakeProvider, Running, Start

BOTH = pytest.mark.parametrize("path", ["/embed", "/"])
PAIR = {"source_sentence": "a", "sentences": ["b", "a"]}


def unit(text: Text, prefix: str = "") -> Any:
    row = np.array(vector(text, prefix))
    return row / np.linalg.norm(row)


@BOTH
@pytest.mark.parametrize(
    ("inputs", "texts"),
    [
        ("a", ["a"]),
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        ([5, 6], [(5, 6)]),
        ([[5], [6]], [(5,), (6,)]),
    ],
)
async def test_inputs_give_a_bare_list(
    running: Running, path: str, inputs: object, texts: list[Text]
) -> None:
    reply, body = await running.post(path, {"inputs": inputs})
    assert reply.status == 200
    assert reply.content_type == "application/json"
    np.testing.assert_allclose(json.loads(body), [unit(text) for text in texts], atol=1e-7)


@BOTH
async def test_parameters_count(running: Running, path: str) -> None:
    _, body = await running.post(path, {"inputs": "a", "prompt_name": "query"})
    np.testing.assert_allclose(json.loads(body), [unit("a", "query: ")], atol=1e-7)
    _, body = await running.post(path, {"inputs": "a", "normalize": False})
    np.testing.assert_allclose(json.loads(body), [vector("a")])
    _, body = await running.post(path, {"inputs": "a", "parameters": {"dimensions": 3}})
    short = unit("a")[:3] / np.linalg.norm(unit("a")[:3])
    np.testing.assert_allclose(json.loads(body), [short], atol=1e-6)


@BOTH
async def test_truncation_is_reported(running: Running, path: str) -> None:
    reply, _ = await running.post(path, {"inputs": ["short", "x" * 17], "truncate": True})
    assert (reply.headers["X-Truncated"], reply.headers["X-Truncated-Indices"]) == ("1", "1")


@BOTH
async def test_texts_give_our_own_reply(running: Running, path: str) -> None:
    for body in ({"texts": ["a"]}, {"texts": ["a"], "inputs": ["b"]}):
        reply, answer = await running.post(path, body)
        assert reply.status == 200
        assert set(json.loads(answer)) == {"embeddings", "model", "dimensions", "usage"}
        np.testing.assert_allclose(json.loads(answer)["embeddings"], [unit("a")], atol=1e-7)


async def test_the_same_text_gives_the_same_bytes(running: Running) -> None:
    _, ours = await running.post("/embed", {"texts": ["a", "b"], "mode": "query"})
    _, theirs = await running.post("/embed", {"inputs": ["a", "b"], "prompt_name": "query"})
    assert ours.startswith(b'{"embeddings":' + theirs)


async def test_a_pair_is_compared_at_the_root_only(running: Running) -> None:
    reply, body = await running.post("/", {"inputs": PAIR, "parameters": {}})
    assert reply.status == 200
    np.testing.assert_allclose(json.loads(body), [unit("a") @ unit("b"), 1.0], atol=1e-6)
    reply, body = await running.post("/embed", {"inputs": PAIR})
    assert reply.status == 422
    assert json.loads(body)["error"].startswith("inputs: got an object; inputs must be a text")


@BOTH
@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "body is empty"),
        (b'{"texts": ', "not valid JSON"),
        (b"[]", "must be a JSON object"),
        ({"input": "a"}, 'texts is missing; send JSON such as {"texts": ["Hello"]}'),
    ],
)
async def test_a_body_that_tells_neither_gets_our_error(
    running: Running, path: str, sent: object, says: str
) -> None:
    reply, body = await running.post(path, sent)
    assert reply.status == 400
    error = json.loads(body)
    assert set(error) == {"error", "code", "error_type", "param"}
    assert error["error_type"] == "Validation"
    assert says in error["error"]


@BOTH
@pytest.mark.parametrize(
    "case",
    [
        (OverloadedError("The queue is full."), 429, 429, "Overloaded"),
        (EngineError("It failed."), 500, 424, "Backend"),
    ],
)
async def test_failures_come_in_the_words_of_the_body(
    running: Running,
    provider: FakeProvider,
    path: str,
    case: tuple[Exception, int, int, str],
) -> None:
    failure, ours, theirs, word = case
    provider.failure = failure
    reply, body = await running.post(path, {"texts": ["a"]})
    assert reply.status == ours
    assert set(json.loads(body)) == {"error", "code", "error_type", "param"}
    assert json.loads(body)["error_type"] == word
    reply, body = await running.post(path, {"inputs": ["a"]})
    assert reply.status == theirs
    assert json.loads(body) == {"error": str(failure), "error_type": word}


@BOTH
async def test_refused_before_the_body_is_read(start: Start, path: str) -> None:
    """Nobody knows yet whose body it is: the reply has the keys of both."""
    async with start(token="s3cret", max_body_bytes=1024) as running:
        reply, body = await running.post(path, {"inputs": "a"})
        assert reply.status == 401
        assert json.loads(body)["error_type"] == "Validation"
        auth = {"Authorization": "Bearer s3cret"}
        reply, body = await running.post(path, {"inputs": "a" * 2000}, headers=auth)
        assert reply.status == 413
        assert json.loads(body)["error_type"] == "Validation"


@BOTH
async def test_a_large_body_is_looked_at_in_a_thread(running: Running, path: str) -> None:
    inputs = ["x" * 300] * 2000
    reply, body = await running.post(path, {"inputs": inputs})
    assert reply.status == 200
    assert len(json.loads(body)) == 2000
