"""The short way answers what the whole way would: byte for byte, however the bytes come, and
nothing that it was not shown before."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import re
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from cortex_embed.errors import EngineError, OverloadedError, TextError
from cortex_embed.server import connection, fast_path, handlers
from cortex_embed.server.fast_path import Known
from cortex_embed.server.routes import ROUTES
from tests.server.conftest import SPEC, FakeProvider
from tests.server.raw import hold, request, shared, text

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start
    from tests.server.raw import Connect

BODIES: dict[str, Any] = {
    "/embed": {"texts": ["a", "b"]},
    "/encode": {"texts": ["a"]},
    "/": {"inputs": "a"},
    "/similarity": {"inputs": {"source_sentence": "a", "sentences": ["b", "c"]}},
    "/v1/embeddings": {"model": "tiny", "input": "a"},
    "/embeddings": {"model": "tiny", "input": ["a", "b"], "encoding_format": "base64"},
    "/v1/embeddings/generate": {"text": "a"},
    "/v1/embed": {"model": "tiny", "texts": ["a"], "input_type": "search_query"},
    "/v2/embed": {
        "model": "tiny",
        "texts": ["a"],
        "input_type": "search_query",
        "embedding_types": ["float"],
    },
}


def test_every_route_with_a_short_way_is_tried_here() -> None:
    short = {
        route.path
        for route in ROUTES
        if isinstance(route.handler, partial) and route.handler.func is handlers.embed
    }
    assert short == set(BODIES)


def test_this_aiohttp_has_what_it_leans_on() -> None:
    assert connection.is_possible()
    tree = ast.parse(inspect.getsource(connection.Connection))
    own = set(connection.Connection.__slots__) | set(vars(connection.Connection))
    private = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
        and node.attr.startswith("_")
    }
    assert private - own == set(connection._USED)


@pytest.mark.parametrize("path", BODIES)
async def test_both_ways_give_the_same_reply(
    connect: Connect, running: Running, taken: list[Known], path: str
) -> None:
    client, sent = await connect(running), request(path, BODIES[path])
    whole = await client.ask(sent)
    assert (whole[0], len(taken)) == (200, 0)
    short = await client.ask(sent)
    assert [known.route for known in taken] == [path]
    assert shared(short) == shared(whole)
    assert short[1].keys() == whole[1].keys()
    assert re.fullmatch(rb"[0-9a-f]{32}", short[1][b"x-request-id"])
    assert short[1][b"x-request-id"] != whole[1][b"x-request-id"]


async def test_other_bodies_other_connections(
    connect: Connect, running: Running, taken: list[Known]
) -> None:
    """A head is the server's to know, not the connection's; its length may be any."""
    assert (await (await connect(running)).ask(text("a")))[0] == 200
    client = await connect(running)
    for value in ("b", "a longer text than before"):
        status, headers, body = await client.ask(text(value))
        assert status == 200
        assert json.loads(body)["usage"]["total_tokens"] == min(len(value), 16)
        assert headers.get(b"x-truncated") == (b"1" if len(value) > 16 else None)
    assert len(taken) == 2


async def test_metrics_count_both_ways_alike(
    connect: Connect, running: Running, taken: list[Known]
) -> None:
    client = await connect(running)
    for _ in range(3):
        await client.ask(text("a"))
    await client.ask(text("a", output_dtype="int8"))  # Voyage's word, at the same path
    assert len(taken) == 3
    _, body = await running.get("/metrics")
    counts = re.findall(rb"cortex_embed_requests_total\{([^}]*)\} (\S+)", body)
    found = {labels: float(count) for labels, count in counts if b"/v1/embeddings" in labels}
    assert sorted(found.values()) == [1.0, 3.0]


@pytest.mark.parametrize(
    "line",
    [
        "X-Request-Id: mine",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "If-Embedding-Fingerprint: *",
        "Connection: close",
        "Origin: http://localhost",
        "X-Anything: else",
    ],
)
async def test_what_is_asked_of_a_header_is_asked_on_the_whole_way(
    connect: Connect, running: Running, taken: list[Known], line: str
) -> None:
    for _ in range(2):
        status, headers, _ = await (await connect(running)).ask(text("a", line))
        assert status == 200
        assert headers[b"x-request-id"] == b"mine" or "Request-Id" not in line
    assert not taken


@pytest.mark.parametrize(
    "first",
    [text("a").replace(b"1.1", b"1.0", 1), b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"],
)
async def test_other_kinds_of_requests_are_not_learned(
    connect: Connect, running: Running, taken: list[Known], first: bytes
) -> None:
    for _ in range(2):
        assert (await (await connect(running)).ask(first))[0] == 200
    assert not taken


async def test_a_key_is_needed_every_time(
    connect: Connect, start: Start, taken: list[Known]
) -> None:
    async with start(token="right") as running:
        good = text("a", "Authorization: Bearer right")
        client = await connect(running)
        assert [(await client.ask(good))[0] for _ in range(2)] == [200, 200]
        for bad in (text("a"), text("a", "Authorization: Bearer wrong")):
            assert [(await client.ask(bad))[0] for _ in range(3)] == [401, 401, 401]
        assert (await client.ask(good))[0] == 200
    assert len(taken) == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        {"model": "tiny", "input": ""},
        {"model": "another", "input": "a"},
        {"model": "tiny", "input": ["a", "b\0"]},
        {"model": "tiny", "input": "a", "output_dtype": "int4"},
        {"model": "tiny", "input": "a", "output_dtype": "int8", "dimensions": 9},
    ],
)
async def test_mistakes_are_told_as_ever(connect: Connect, running: Running, body: object) -> None:
    client = await connect(running)
    sent = request("/v1/embeddings", body)
    before = await (await connect(running)).ask(sent)
    assert 400 <= before[0] < 500
    assert (await client.ask(text("a")))[0] == 200
    assert shared(await client.ask(sent)) == shared(before)
    assert (await client.ask(text("a")))[0] == 200


@pytest.mark.parametrize(
    ("why", "status"),
    [
        (OverloadedError("full", retry_after=1), 429),
        (TextError(0, "cannot be read"), 400),
        (EngineError("broke"), 500),
        (ValueError("unforeseen"), 500),
    ],
)
async def test_failures_are_told_once_and_as_ever(
    connect: Connect, running: Running, taken: list[Known], why: Exception, status: int
) -> None:
    provider = running.provider
    client = await connect(running)
    provider.failure = why
    whole = await client.ask(text("a", output_dtype="int8"))
    provider.failure = None
    assert (await client.ask(text("a")))[0] == 200
    calls: list[object] = []
    embed = provider.embed

    async def counted(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return await embed(*args, **options)

    provider.embed = counted  # type: ignore[method-assign]
    provider.failure = why
    short = await client.ask(text("a", output_dtype="int8"))
    assert (whole[0], len(calls), len(taken)) == (status, 1, 1)
    if status != 500:  # that one tells the id of the request
        assert shared(short) == shared(whole)
    _, metrics = await running.get("/metrics")
    told = f'dialect="voyage",route="/v1/embeddings",status="{status}"'
    assert f"cortex_embed_requests_total{{{told}}} 2.0" in metrics.decode()
    provider.failure = None
    assert (await client.ask(text("a")))[0] == 200


async def test_a_client_that_leaves_takes_its_work_along(
    connect: Connect, running: Running, provider: FakeProvider, taken: list[Known]
) -> None:
    client = await connect(running)
    await client.ask(text("a"))
    await hold(provider, client, text("a"))
    client.writer.transport.abort()
    async with asyncio.timeout(5):
        while not provider.cancelled:  # noqa: ASYNC110 - the provider's count, not an event
            await asyncio.sleep(0.01)
    provider.gate.set()
    assert len(taken) == 1
    _, body = await running.get("/metrics")
    assert re.search(rb'cortex_embed_requests_total\{[^}]*status="499"[^}]*\} 1.0', body)


async def test_large_bodies_and_replies(
    connect: Connect, running: Running, taken: list[Known]
) -> None:
    """A thread takes what would hold up the event loop."""
    client = await connect(running)
    await client.ask(text("a"))
    few = {"model": "tiny", "input": ["a"] * 13_000}  # 104,000 numbers
    assert len(json.loads((await client.ask(request("/v1/embeddings", few)))[2])["data"]) == 13_000
    assert len(taken) == 1
    many = {"model": "tiny", "input": ["a" * 20] * 16_000}
    assert (await client.ask(request("/v1/embeddings", many)))[0] == 200
    assert len(taken) == 1


async def test_not_with_a_log_of_every_request(
    connect: Connect, start: Start, taken: list[Known]
) -> None:
    async with start(access_log=True) as running:
        client = await connect(running)
        assert [(await client.ask(text("a")))[0] for _ in range(2)] == [200, 200]
    assert not taken


async def test_not_where_pages_are_let_in(
    connect: Connect, start: Start, taken: list[Known]
) -> None:
    """What their replies say depends on who asks."""
    async with start(cors_origins=("http://a.example",)) as running:
        client = await connect(running)
        assert [(await client.ask(text("a")))[0] for _ in range(2)] == [200, 200]
    assert not taken


async def test_a_server_that_stops_answers_and_closes(
    connect: Connect, running: Running, provider: FakeProvider, taken: list[Known]
) -> None:
    client, idle = await connect(running), await connect(running)
    await client.ask(text("a"))
    await idle.ask(text("a"))
    await hold(provider, client, text("a"))
    running.server.stop()
    await asyncio.wait_for(running.report.is_draining.wait(), 5)
    assert ("draining", 1, "signal") in running.report.events
    status, headers, _ = await idle.ask(text("a"))
    assert (status, headers[b"connection"]) == (503, b"close")
    provider.gate.set()
    status, headers, _ = await client.read()
    assert (status, headers[b"connection"]) == (200, b"close")
    assert await client.is_ended()
    assert await asyncio.wait_for(running.task, 5) == 0
    assert len(taken) == 2


async def test_a_model_that_is_not_in_memory_is_waited_for(
    connect: Connect, start: Start, taken: list[Known]
) -> None:
    other = FakeProvider(replace(SPEC, id="other", repo="Maker/Other", aliases=()))
    async with start(others=[other], load_wait=5.0) as running:
        client = await connect(running)
        await client.ask(text("a"))
        assert (await client.ask(text("a", model="other")))[0] == 200
    assert len(taken) == 1


async def test_so_many_heads_are_remembered(
    connect: Connect, running: Running, taken: list[Known]
) -> None:
    client = await connect(running)
    heads = [f"User-Agent: {number}" for number in range(fast_path._HEADS + 1)]
    for head in heads:
        assert (await client.ask(text("a", head)))[0] == 200
    await client.ask(text("a", heads[0]))  # forgotten, and learned in place of the second
    assert not taken
    await client.ask(text("a", heads[-1]))
    await client.ask(text("a", heads[0]))
    assert len(taken) == 2
