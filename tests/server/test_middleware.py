"""Every error over real HTTP: its status, its body in the path's dialect, its headers; and
the next good request is answered."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from cortex_embed import logs
from cortex_embed.errors import EngineError, OverloadedError, TokensError

if TYPE_CHECKING:
    from cortex_embed.domain import Text
    from tests.server.conftest import FakeProvider, Running, Start

BOTH = [("/embed", "texts"), ("/v1/embeddings", "input")]
SECRET = "the text nobody may log"


def openai_error(body: bytes) -> dict[str, Any]:
    document = json.loads(body)
    assert set(document) == {"error", "detail"}
    error: dict[str, Any] = document["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert document["detail"] == error["message"]
    return error


def native_error(body: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(body)
    assert set(error) == {"error", "code", "error_type", "param"}
    return error


def message(path: str, body: bytes) -> str:
    text = openai_error(body)["message"] if "v1" in path else native_error(body)["error"]
    assert isinstance(text, str)
    return text


async def still_serving(running: Running) -> None:
    reply, _ = await running.post("/embed", {"texts": ["good"]})
    assert reply.status == 200


@pytest.mark.parametrize(("path", "field"), BOTH)
@pytest.mark.parametrize(
    ("texts", "at"),
    [
        (None, ""),
        (5, ""),
        ([], ""),
        ([""], "[0]"),
        (["a", ""], "[1]"),
        (["a\0b"], "[0]"),
        (["a", {}], "[1]"),
        (["a" * 2_000_000], "[0]"),
        (["a"] * 16_385, ""),
    ],
)
async def test_bad_texts(running: Running, path: str, field: str, texts: object, at: str) -> None:
    reply, body = await running.post(path, {"model": "tiny", field: texts})
    assert reply.status == 400
    error = openai_error(body) if "v1" in path else native_error(body)
    assert error["param"] == field + at
    await still_serving(running)


@pytest.mark.parametrize(("path", "field"), BOTH)
async def test_bad_parameters(running: Running, path: str, field: str) -> None:
    for dimensions in (0, -1, 9, 10**30):
        reply, body = await running.post(
            path, {"model": "tiny", field: ["a"], "dimensions": dimensions}
        )
        assert reply.status == 400
        assert "dimensions" in message(path, body)
    reply, body = await running.post(path, {"model": "nope", field: ["a"]})
    assert reply.status == 404
    assert "'nope' is not served here. Served: tiny." in message(path, body)
    error = openai_error(body) if "v1" in path else native_error(body)
    assert error["code"] == "model_not_found"
    await still_serving(running)


@pytest.mark.parametrize("path", ["/v1/nothing", "/nothing", "/v1", "/%ff%fe", "/" + "x" * 5000])
async def test_unknown_path(running: Running, path: str) -> None:
    reply, body = await running.get(path)
    assert reply.status == 404
    assert "There is nothing at /" in message(path, body)
    assert len(message(path, body)) < 300


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/embed", "POST"),
        ("PUT", "/v1/embeddings", "POST"),
        ("DELETE", "/v1/models", "GET, HEAD"),
        ("PUT", "/", "GET, HEAD, POST"),
        ("OPTIONS", "/v1/models/tiny", "GET, HEAD"),
    ],
)
async def test_wrong_method(running: Running, method: str, path: str, allow: str) -> None:
    async with running.http.request(method, path) as reply:
        assert reply.status == 405
        assert reply.headers["Allow"] == allow
        assert f"{path} answers {allow}, not {method}." in message(path, await reply.read())


async def test_unknown_model_by_path(running: Running) -> None:
    reply, body = await running.get("/v1/models/BAAI/other")
    assert reply.status == 404
    assert openai_error(body)["code"] == "model_not_found"


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
async def test_body_over_the_limit(start: Start, path: str) -> None:
    async with start(max_body_bytes=1024) as running:
        big = b'{"x": "' + b"y" * 200_000 + b'"}'

        async def chunks() -> Any:
            for _ in range(200):
                yield b"z" * 1000

        for data in (big, chunks()):
            async with running.http.post(path, data=data) as reply:
                assert reply.status == 413
                assert "1024" in message(path, await reply.read())
        await still_serving(running)
        exact = b'{"model": "tiny", "input": "a", "texts": ["a"]}'.ljust(1024)
        reply, _ = await running.post(path, exact)
        assert reply.status == 200


async def test_decompression_bomb(start: Start) -> None:
    async with start(max_body_bytes=100_000) as running:
        bomb = zlib.compress(b" " * 50_000_000)
        reply, body = await running.post("/embed", bomb, headers={"Content-Encoding": "deflate"})
        assert reply.status == 413
        assert "limit of 100000" in message("/embed", body)
        await still_serving(running)


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
async def test_body_that_is_not_what_its_encoding_says(
    running: Running, encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Content-Encoding": encoding}
    cut_short = zlib.compress(b'{"texts": ["a"]}')[:-6]
    for body in (b"\x01not compressed at all", cut_short):
        reply, _ = await running.post("/embed", body, headers=headers)
        assert reply.status == 400
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await still_serving(running)


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
async def test_client_that_stops_sending(start: Start, path: str) -> None:
    async with start(body_timeout=0.2) as running:
        reader, writer = await running.raw()
        writer.write(
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{{".encode()
        )
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).decode()
        assert head.startswith("HTTP/1.1 408 ")
        assert "Connection: close" in head
        length = int(re.search(r"Content-Length: (\d+)", head)[1])  # type: ignore[index]
        assert "within 0.2 s" in message(path, await reader.readexactly(length))
        writer.close()
        await still_serving(running)


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
async def test_overloaded(running: Running, provider: FakeProvider, path: str) -> None:
    provider.failure = OverloadedError("The queue is full.", retry_after=3)
    reply, body = await running.post(path, {"model": "tiny", "input": "a", "texts": ["a"]})
    assert reply.status == 429
    assert reply.headers["Retry-After"] == "3"
    assert message(path, body) == "The queue is full."


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
@pytest.mark.parametrize("failure", [RuntimeError(SECRET), EngineError("The runtime failed.")])
async def test_unexpected_failure(
    running: Running,
    provider: FakeProvider,
    path: str,
    failure: Exception,
    caplog: pytest.LogCaptureFixture,
) -> None:
    failure.__cause__ = KeyError(SECRET)
    provider.failure = failure
    request = {"model": "tiny", "input": SECRET, "texts": [SECRET]}
    reply, body = await running.post(path, request, headers={"X-Request-Id": "abc-1"})
    assert reply.status == 500
    assert SECRET not in message(path, body)
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    logged = record.getMessage()
    assert "request abc-1 failed" in logged
    assert type(failure).__qualname__ in logged
    assert "builtins.KeyError" in logged
    assert "conftest.py:" in logged
    assert SECRET not in caplog.text
    provider.failure = None
    await still_serving(running)


async def test_the_trace_is_in_the_error_log(
    running: Running, provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    provider.failure = RuntimeError(SECRET)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    header = ("traceparent", f"00-{trace}-00f067aa0ba902b7-01")
    one = [header, ("X-Request-Id", "abc-1")]
    for headers in (one, [*one, header], [("traceparent", "00-" + trace.upper())]):
        await running.post("/embed", {"texts": [SECRET]}, headers=headers)
    first, twice, wrong = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert f"request abc-1 failed (trace {trace}): " in first.getMessage()
    fields = json.loads(logs.record_as_json(first))
    assert (fields["request_id"], fields["trace_id"]) == ("abc-1", trace)
    assert "trace" not in twice.getMessage()
    assert "trace" not in wrong.getMessage()


async def test_too_many_tokens(running: Running, provider: FakeProvider) -> None:
    provider.failure = TokensError(3_000_000, 2_097_152)
    for path, field in BOTH:
        reply, body = await running.post(path, {"model": "tiny", field: ["a"]})
        assert reply.status == 400
        assert message(path, body) == (
            f"{field} has 3000000 tokens; the limit is 2097152 a request (--max-request-tokens). "
            "Send several requests."
        )
        error = openai_error(body) if "v1" in path else native_error(body)
        assert (error["code"], error["param"]) == ("too_many_tokens", field)


async def test_request_id(running: Running) -> None:
    for path in ("/", "/nothing", "/v1/models/nothing"):
        async with running.http.get(path, headers={"X-Request-Id": "trace-42_a.b"}) as reply:
            assert reply.headers["X-Request-Id"] == "trace-42_a.b"
        seen = set()
        for insane in ("", "a b", "ä", "x" * 129, '"><'):
            async with running.http.get(path, headers={"X-Request-Id": insane}) as reply:
                given = reply.headers["X-Request-Id"]
                assert re.fullmatch("[0-9a-f]{32}", given)
                seen.add(given)
        assert len(seen) == 5


async def test_disconnect_cancels_the_work(running: Running, provider: FakeProvider) -> None:
    provider.gate.clear()
    with suppress(TimeoutError):
        await running.post("/embed", {"texts": ["a"]}, timeout=aiohttp.ClientTimeout(total=0.3))
    assert provider.started.is_set()
    for _ in range(100):
        if provider.cancelled:
            break
        await asyncio.sleep(0.02)
    assert provider.cancelled == 1
    provider.gate.set()
    await still_serving(running)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        SECRET.encode() + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + SECRET.encode() + b"\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\nx",
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
        b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_not_http(running: Running, garbage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await running.raw()
    writer.write(garbage)
    with suppress(ConnectionError):
        answer = await asyncio.wait_for(reader.read(), 5)
        assert answer.startswith(b"HTTP/1.") or not answer
        assert b" 400 " in answer or not answer
    writer.close()
    assert SECRET not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    await still_serving(running)


async def test_texts_of_others_are_not_lost(running: Running, provider: FakeProvider) -> None:
    """Bad requests beside good ones: each caller gets its own answer."""
    provider.gate.clear()
    texts: list[list[Text]] = [[f"text {n}"] if n % 2 else [""] for n in range(64)]
    tasks = [
        asyncio.get_running_loop().create_task(running.post("/embed", {"texts": t})) for t in texts
    ]
    await asyncio.wait_for(provider.started.wait(), 5)
    provider.gate.set()
    for number, (reply, _) in enumerate(await asyncio.gather(*tasks)):
        assert reply.status == (200 if number % 2 else 400)
