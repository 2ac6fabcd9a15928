"""Every bad input over both dialects against a real process: a clear 4xx in the dialect's own
shape, never a 500, never a hang, and the next good request is answered with the same vector."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.process import Client, Reply, read_response

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact
    from tests.e2e.conftest import Serve

pytestmark = pytest.mark.e2e
DEEP = 200_000
PATHS = {"/embed": "texts", "/v1/embeddings": "input"}


def checked(path: str, reply: Reply, status: int, says: str) -> None:
    """The reply is an error of this path's dialect and says what is wrong."""
    assert reply.status == status, reply.body[:300]
    document: dict[str, Any] = reply.json
    if path.startswith("/v1"):
        assert set(document["error"]) == {"message", "type", "param", "code"}
        message = document["error"]["message"]
        assert document["detail"] == message
    else:
        assert set(document) == {"error", "code", "error_type", "param"}
        message = document["error"]
    assert says in message
    assert len(message) < 1000


def good(client: Client) -> list[float]:
    return client.embed(["a good text"])[0]


def bodies(field: str) -> list[tuple[str, bytes, int, str]]:
    """(what it is, body, status, what the message must say)."""

    def with_texts(texts: str, more: str = "") -> bytes:
        return f'{{"model": "MODEL", "{field}": {texts}{more}}}'.encode()

    return [
        ("empty body", b"", 400, "body is empty"),
        ("broken JSON", b'{"model": "x", ', 400, "not valid JSON"),
        ("trailing garbage", with_texts('["a"]') + b"garbage", 400, "not valid JSON"),
        ("not an object", b'["a"]', 400, "must be a JSON object"),
        ("a form", b"texts=a&input=a", 400, "not valid JSON"),
        ("not UTF-8", with_texts('["@"]').replace(b"@", b"\xff\xfe"), 400, "not UTF-8"),
        ("UTF-16", with_texts('["a"]').decode().encode("utf-16"), 400, "not UTF-8"),
        ("deep", b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}", 400, "nested too deeply"),
        ("missing texts", b'{"model": "MODEL"}', 400, f"{field} is missing"),
        ("null texts", with_texts("null"), 400, f"{field}: got null"),
        ("number", with_texts("5"), 400, f"{field}: got a number"),
        ("item of a wrong type", with_texts('["a", {}]'), 400, f"{field}[1]: got an object"),
        ("item null", with_texts('["a", null]'), 400, f"{field}[1]: got null"),
        ("empty list", with_texts("[]"), 400, f"{field} is empty"),
        ("empty text", with_texts('["a", ""]'), 400, f"{field}[1] is empty"),
        ("lone surrogate", with_texts(r'["\ud800"]'), 400, "lone surrogate (U+D800)"),
        ("lone low surrogate", with_texts(r'["a\udc00b"]'), 400, "lone surrogate (U+DC00)"),
        ("NUL", with_texts(r'["a\u0000b"]'), 400, "NUL"),
        ("10 MB of text", with_texts('["' + "word " * 2_000_000 + '"]'), 400, "10000000"),
        ("too many texts", with_texts(json.dumps(["a"] * 16_385)), 400, "16384"),
        ("unknown model", with_texts('["a"]').replace(b"MODEL", b"other"), 404, "'other'"),
        ("dimensions 0", with_texts('["a"]', ', "dimensions": 0'), 400, "dimensions"),
        ("dimensions -1", with_texts('["a"]', ', "dimensions": -1'), 400, "dimensions"),
        ("dimensions above", with_texts('["a"]', ', "dimensions": 99999'), 400, "99999"),
        ("dimensions 1.5", with_texts('["a"]', ', "dimensions": 1.5'), 400, "dimensions: got"),
        ("dimensions true", with_texts('["a"]', ', "dimensions": true'), 400, "dimensions: got"),
        (
            "dimensions huge",
            with_texts('["a"]', f', "dimensions": {"9" * 4000}'),
            400,
            "dimensions: number out of range",
        ),
        ("body over the limit", b" " * (33 * 2**20), 413, "limit"),
    ]


@pytest.mark.parametrize("path", PATHS)
def test_every_bad_body(client: Client, tiny_mean: Artifact, path: str) -> None:
    """One server for all: it must survive the whole list."""
    before = good(client)
    for what, body, status, says in bodies(PATHS[path]):
        sent = body.replace(b"MODEL", tiny_mean.spec.id.encode())
        reply = client.post(path, sent)
        try:
            checked(path, reply, status, says)
        except AssertionError as why:
            raise AssertionError(f"{what}: {why}") from why
        assert good(client) == pytest.approx(before, abs=1e-6), what


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"input": "a"}, 400, "model is missing"),
        ({"input": "a", "model": None}, 400, "model is missing"),
        ({"input": ""}, 400, "input is empty"),
        ({"input": ["a", 1]}, 400, "input[1] is a token id"),
        ({"input": [[]]}, 400, "input[0]"),
        ({"input": [[1], []]}, 400, "input[1]"),
        ({"input": [-1]}, 400, "input[0]: number out of range"),
        ({"input": [10**30]}, 400, "input[0]: number out of range"),
        ({"input": [2**31 - 1]}, 400, "input"),
        ({"input": [[1, True]]}, 400, "input[0][1]: got a boolean"),
        ({"input": "a", "encoding_format": "int8"}, 400, "encoding_format: got 'int8'"),
    ],
)
def test_openai_fields(
    client: Client, tiny_mean: Artifact, fields: dict[str, object], status: int, says: str
) -> None:
    body = fields if "missing" in says else {"model": tiny_mean.spec.id, **fields}
    checked("/v1/embeddings", client.post("/v1/embeddings", body), status, says)
    good(client)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"texts": "hello"}, "texts: got a string; texts must be a list of strings"),
        ({"texts": ["a"], "mode": "search"}, "mode: got 'search'"),
        ({"texts": ["a"], "truncate": "middle"}, "truncate: got 'middle'"),
        ({"texts": ["a"], "normalize": 1}, "normalize: got a number"),
        ({"texts": ["word " * 3000], "truncate": False}, "texts[0]"),
    ],
)
def test_native_fields(client: Client, fields: dict[str, object], says: str) -> None:
    checked("/embed", client.post("/embed", fields), 400, says)
    good(client)


def test_routes(client: Client) -> None:
    for path in ("/nothing", "/v1/nothing"):
        checked(path, client.get(path), 404, f"There is nothing at {path}")
    for method, path in (("GET", "/embed"), ("DELETE", "/v1/embeddings"), ("PUT", "/v1/models")):
        reply = client.call(method, path)
        checked(path, reply, 405, method)
        assert reply.headers["Allow"] in {"POST", "GET, HEAD"}
    checked("/v1/models/no/such", client.get("/v1/models/no/such"), 404, "'no/such'")


def test_overlong_texts_are_cut_and_reported_or_refused(serve: Serve, tiny_mean: Artifact) -> None:
    long = "word " * (tiny_mean.spec.max_tokens * 2)
    lenient = serve(tiny_mean).ready()
    reply = lenient.post("/embed", {"texts": ["short", long]})
    assert reply.headers["X-Truncated"] == "1"
    assert reply.headers["X-Truncated-Indices"] == "1"
    (cut,) = reply.json["truncated"]
    assert cut["index"] == 1
    assert cut["used"] == tiny_mean.spec.max_tokens < cut["tokens"]
    strict = serve(tiny_mean, "--on-overlong", "error").ready()
    checked("/embed", strict.post("/embed", {"texts": ["short", long]}), 400, "texts[1]")
    good(strict)


GARBAGE: list[Callable[[random.Random], bytes]] = [
    lambda chance: chance.randbytes(200),
    lambda _: b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03",
    lambda _: b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n\r\n{",
    lambda _: (
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nXYZ\r\n"
    ),
    lambda _: b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    lambda _: b"GET / HTTP/9.9\r\n\r\n" * 20,
    lambda _: (
        b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\nnot json!"
    ),
    lambda chance: (
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 30\r\n\r\n" + chance.randbytes(30)
    ),
    lambda _: b"GET /" + b"a" * 100_000,
]


def test_64_clients_while_another_sends_garbage(serve: Serve, tiny_mean: Artifact) -> None:
    served = serve(tiny_mean)
    client = served.ready()
    texts = [f"client {n} " + "says more " * (n % 20) for n in range(64)]
    expected = client.embed(texts)
    wrong: list[str] = []
    done = threading.Event()

    def vandal() -> None:
        chance = random.Random(7)  # noqa: S311 - repeatable on purpose
        while not done.is_set():
            try:
                with client.socket() as stream:
                    stream.sendall(chance.choice(GARBAGE)(chance))
                    stream.settimeout(0.05)
                    read_response(stream)
            except OSError:
                continue

    def citizen(number: int) -> None:
        for turn in range(5):
            dialect = (number + turn) % 2
            try:
                if dialect:
                    vector = client.embed([texts[number]])[0]
                else:
                    body = {"model": tiny_mean.spec.id, "input": [texts[number]]}
                    vector = client.post("/v1/embeddings", body).json["data"][0]["embedding"]
                if vector != pytest.approx(expected[number], abs=1e-6):
                    wrong.append(f"client {number}: another vector")
            except Exception as why:
                wrong.append(f"client {number}: {why!r}")

    vandals = [threading.Thread(target=vandal) for _ in range(2)]
    citizens = [threading.Thread(target=citizen, args=(n,)) for n in range(64)]
    for thread in vandals + citizens:
        thread.start()
    for thread in citizens:
        thread.join(60)
    done.set()
    for thread in vandals:
        thread.join(30)
    assert wrong == []
    good(client)
    served.signal()
    assert served.exit_code() == 0
    assert "Traceback" not in served.stderr
    assert "failed" not in served.stderr
