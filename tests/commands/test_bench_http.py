"""`bench`'s client: HTTP/1.1 in any pieces, and what is not it."""

from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.commands import bench_http
from cortex_embed.commands.bench_http import HttpClient, ResponseParser, tokens_of
from cortex_embed.errors import TargetError, UsageError
from tests.commands.openai_stub import body, response


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x/v1", "http://", "http://h:99999/v1"])
def test_wrong_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        HttpClient(url)


@given(
    st.lists(st.tuples(st.sampled_from(["length", "chunked"]), st.binary(max_size=200))),
    st.integers(1, 50),
)
def test_responses_survive_any_split(bodies: list[tuple[str, bytes]], step: int) -> None:
    wire = b""
    for kind, content in bodies:
        if kind == "length":
            wire += response(content)
            continue
        wire += b"HTTP/1.1 100 Continue\r\n\r\n"
        wire += b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        middle = len(content) // 2
        for part in (content[:middle], content[middle:]):
            wire += b"%x;a=b\r\n%s\r\n" % (len(part), part) if part else b""
        wire += b"0\r\nTrailer: x\r\n\r\n"
    parser = ResponseParser()
    found = []
    for start in range(0, len(wire), step):
        done = parser.feed(wire[start : start + step])
        while done is not None:
            found.append(done.body)
            done = parser.feed(b"")
    assert found == [content for _, content in bodies]
    assert parser.empty


def test_a_body_may_end_with_the_connection() -> None:
    parser = ResponseParser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\n\r\npart") is None
    done = parser.end()
    assert done is not None
    assert (done.body, done.closes) == (b"part", True)


def test_what_is_not_http_is_an_error() -> None:
    with pytest.raises(ValueError, match="not an HTTP"):
        ResponseParser().feed(b"SSH-2.0-x\r\n\r\n")


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (body(1, tokens=42), 42),
        (b'{"usage":{"prompt_tokens":7}}', 7),
        (b'{"usage":{"prompt_tokens":null}}', None),
        (b"{}", None),
    ],
)
def test_tokens_are_found_without_parsing(content: bytes, tokens: int | None) -> None:
    assert tokens_of(content) == tokens


async def test_the_time_is_the_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of this process, which may turn to the answer later."""
    received = bench_http._Connection.data_received

    def late(self: bench_http._Connection, data: bytes) -> None:
        received(self, data)
        time.sleep(0.4)

    monkeypatch.setattr(bench_http._Connection, "data_received", late)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(slow, "127.0.0.1", 0) as server:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        answer = await client.send(0, client.request("GET", "/models"))
        await client.close()
    assert 0.09 < answer.seconds < 0.4


async def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_http, "_PATIENCE", 0.1)
    left = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass
        writer.close()
        left.set()

    async with await asyncio.start_server(silent, "127.0.0.1", 0) as server:
        client = HttpClient(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        with pytest.raises(TargetError, match="did not answer within"):
            await client.send(0, client.request("GET", "/models"))
        await client.close()
        await asyncio.wait_for(left.wait(), 5)
