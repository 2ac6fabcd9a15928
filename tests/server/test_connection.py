"""The short way and the bytes of a connection: where a request begins and ends, however cut."""

from __future__ import annotations

import asyncio
import gc
import json
import random
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from cortex_embed.server import connection, lifecycle
from cortex_embed.server.connection import Connection, Runner
from cortex_embed.server.fast_path import Known
from tests.server.raw import hold, request, shared, text

if TYPE_CHECKING:
    from tests.server.conftest import FakeProvider, Running, Start
    from tests.server.raw import Connect


async def test_between_others_on_one_connection(
    connect: Connect, running: Running, taken: list[Known]
) -> None:
    client = await connect(running)
    look = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for sent in (text("a"), look, text("b"), look, request("/embed", {"texts": []}), text("c")):
        status = (await client.ask(sent))[0]
        assert status == (400 if b"[]" in sent else 200)
    assert len(taken) == 2


async def test_a_refused_request_teaches_nothing_that_follows_it(
    connect: Connect, start: Start, taken: list[Known]
) -> None:
    """The second is read while aiohttp is busy with the first: its head is not the first's."""
    async with start(token="right") as running:
        client = await connect(running)
        good, bad = text("a", "Authorization: Bearer right"), text("a")
        assert (await client.ask(bad + good))[0] == 401
        assert (await client.read())[0] == 200
        assert (await client.ask(bad))[0] == 401
        other = await connect(running)
        assert (await other.ask(bad))[0] == 401
    assert not taken


async def test_clients_that_do_not_wait_are_answered_in_turn(
    connect: Connect, running: Running, provider: FakeProvider, taken: list[Known]
) -> None:
    client = await connect(running)
    await client.ask(text("a"))
    await hold(provider, client, text("bb"))
    for value in ("ccc", "dddd"):
        client.writer.write(text(value))
        await asyncio.sleep(0.02)
    provider.gate.set()
    tokens = [json.loads((await client.read())[2])["usage"]["total_tokens"] for _ in range(3)]
    assert tokens == [2, 3, 4]
    assert len(taken) == 3


@pytest.mark.parametrize("at", ["before its body", "in its body"])
async def test_a_body_that_comes_after_its_head(
    connect: Connect, running: Running, taken: list[Known], at: str
) -> None:
    """As most of Python's clients send it."""
    client = await connect(running)
    for value in ("a", "bb", "ccc"):
        sent = text(value)
        cut = sent.index(b"\r\n\r\n") + 4 + (5 if at == "in its body" else 0)
        _, _, body = await client.ask(sent[:cut], sent[cut:])
        assert json.loads(body)["usage"]["total_tokens"] == len(value)
    assert len(taken) == 2


async def test_a_body_that_does_not_come(
    connect: Connect, start: Start, taken: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.05)
    async with start(body_timeout=0.3) as running:
        client = await connect(running)
        await client.ask(text("a"))
        status, headers, body = await client.ask(text("b")[:-3])
        assert (status, headers[b"connection"]) == (408, b"close")
        assert b"--body-timeout" in body
        slow = await connect(running)
        assert (await slow.ask(text("b")[:-9], text("b")[-9:-4], text("b")[-4:]))[0] == 200
    assert len(taken) <= 1


async def test_any_cut_of_any_requests_gives_the_same_replies(
    connect: Connect, running: Running
) -> None:
    """Bytes have no borders: whatever a client's writes are, each request gets its reply."""
    chance = random.Random(7)  # noqa: S311
    look = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n"
    kinds = [text("a"), text("bb"), text("ccc", "X-Own: 1"), look, text(""), text("\u00e9" * 9)]
    alone = [await (await connect(running)).ask(sent) for sent in kinds]
    for _ in range(60):
        chosen = [chance.randrange(len(kinds)) for _ in range(chance.randint(2, 5))]
        stream = b"".join(kinds[one] for one in chosen)
        starts = [0]
        for one in chosen[:-1]:
            starts.append(starts[-1] + len(kinds[one]))
        cuts = chance.sample(range(1, len(stream)), chance.randint(0, 5))
        if chance.random() < 0.5:
            cuts += starts[1:]
        cuts = sorted({0, *cuts, len(stream)})
        client = await connect(running)
        for begin, end in pairwise(cuts):
            client.writer.write(stream[begin:end])
            await asyncio.sleep(chance.choice((0, 0.001, 0.004)))
        for one in chosen:
            assert shared(await client.read()) == shared(alone[one])


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
async def test_a_head_that_begins_with_a_few_bytes(
    size: int, connect: Connect, running: Running, taken: list[Known]
) -> None:
    """aiohttp has them, and waits for the rest: it would read the next request as that."""
    sent = text("a")
    for _ in range(2):
        client = await connect(running)
        client.writer.write(sent[:size])
        await asyncio.sleep(0.02)
        assert (await client.ask(sent[size:]))[0] == 200
        assert (await client.ask(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0] == 200
    assert not taken
    assert (await (await connect(running)).ask(sent[size:]))[0] == 400


@pytest.mark.parametrize("words", ["a secret", "a secret " * 90])
@pytest.mark.parametrize("cut", [None, 9])
async def test_nothing_of_a_request_stays_on_an_idle_connection(
    words: str, cut: int | None, connect: Connect, running: Running, taken: list[Known]
) -> None:
    client = await connect(running)
    for _ in range(3):
        sent = text(words)
        parts = (sent,) if cut is None else (sent[:-cut], sent[-cut:])
        assert (await client.ask(*parts))[0] == 200
    assert taken
    await asyncio.sleep(0.01)
    connections = [one for one in gc.get_objects() if isinstance(one, Connection)]
    assert connections
    for one in connections:
        kept = [getattr(one, name, None) for name in Connection.__slots__]
        assert "secret" not in repr(kept)


HALF = b"POST /nowhere HTTP/1.1\r\nX-Own: "


async def test_the_rest_of_a_head_that_looks_like_a_request(
    connect: Connect, running: Running, taken: list[Known]
) -> None:
    """One request and half a head in one write: what follows belongs to that head."""
    client = await connect(running)
    await client.ask(text("a"))
    assert (await client.ask(text("a") + HALF))[0] == 200
    assert (await client.ask(text("a")))[0] == 404
    assert not taken


async def test_a_body_and_half_a_head_at_once(
    connect: Connect, running: Running, taken: list[Known], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both before the work on the first goes on, which no event loop promises not to do: of the
    second, what is held is the beginning."""
    client, first = await connect(running), text("bb")
    await client.ask(text("a"))
    received = connection.Connection.data_received

    def cut(self: connection.Connection, data: bytes) -> None:
        begin = first.index(b"\r\n\r\n") + 4
        for piece in (data[:begin], data[begin : len(first)], data[len(first) :]):
            received(self, piece)

    with monkeypatch.context() as patched:
        patched.setattr(connection.Connection, "data_received", cut)
        reply = await client.ask(first + HALF)
    assert json.loads(reply[2])["usage"]["total_tokens"] == 2
    assert (await client.ask(text("a")))[0] == 404
    assert len(taken) == 1


@pytest.mark.parametrize(
    "sent",
    [
        text("a").replace(b"Content-Length: ", b"Content-Length: 1\r\nContent-Length: "),
        text("a").replace(b"Content-Length: ", b"Content-Length: +"),
        text("a").replace(b"Content-Length: ", b"Content-Length: 0x"),
        text("a", "Transfer-Encoding: chunked"),
        text("a").replace(b"Host: localhost\r\n", b""),
        text("a").replace(b"Host: localhost", b"Host: elsewhere.example"),
    ],
)
async def test_heads_that_are_refused_stay_refused(
    connect: Connect, running: Running, taken: list[Known], sent: bytes
) -> None:
    before = (await (await connect(running)).ask(sent))[0]
    client = await connect(running)
    assert (await client.ask(text("a")))[0] == 200
    assert (await client.ask(sent))[0] == before
    assert before >= 400 or b"Host" not in sent
    assert len(taken) <= 1


async def test_a_busy_connection_is_not_idle(
    connect: Connect,
    start: Start,
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    taken: list[Known],
) -> None:
    """aiohttp closes a connection on which nothing happens, as far as it sees."""
    monkeypatch.setattr(lifecycle, "Runner", partial(Runner, keepalive_timeout=0.4))
    async with start() as running:
        client = await connect(running)
        for _ in range(6):
            assert (await client.ask(text("a")))[0] == 200
            await asyncio.sleep(0.15)
        provider.gate.clear()
        client.writer.write(text("a"))
        await asyncio.sleep(0.2)
        provider.gate.set()
        assert (await client.read())[0] == 200
        assert len(taken) == 6
        assert await client.is_ended()


async def test_a_head_that_is_too_long_is_not_remembered(
    connect: Connect, running: Running, taken: list[Known]
) -> None:
    client = await connect(running)
    for _ in range(2):
        assert (await client.ask(text("a", f"User-Agent: {'u' * 4096}")))[0] == 200
    assert not taken
