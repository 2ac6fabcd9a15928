"""Requests that share their way get what each would have got by itself."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_embed.domain import EmbedResult, Pooled, Submitted, Timings
from cortex_embed.errors import EngineError, OverloadedError
from cortex_embed.server import lots
from cortex_embed.server.fast_path import Known
from cortex_embed.server.lots import Template
from cortex_embed.wire import cohere, generate, native, openai, tei
from cortex_embed.wire.dialect import Asked, ServerDialect
from tests.circles import circles
from tests.server.conftest import SPEC, FakeProvider, vector
from tests.server.raw import hold, shared, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.server.conftest import Running, Start
    from tests.server.raw import Client, Connect

SPEAKERS: dict[str, tuple[ServerDialect, dict[str, Any]]] = {
    "openai": (openai, {"model": "tiny", "input": "a", "user": "b"}),
    "list": (openai, {"input": ["a"], "model": "tiny"}),
    "base64": (openai, {"model": "tiny", "input": "a", "encoding_format": "base64"}),
    "int8": (openai, {"model": "tiny", "input": "a", "output_dtype": "int8"}),
    "two types": (openai, {"model": "m", "input": "a", "embedding_type": ["float", "binary"]}),
    "item": (openai, {"model": "tiny", "input": {"text": "a"}}),
    "one number": (openai, {"model": "model-1.0", "input": "a", "dimensions": 1}),
    "one level": (
        openai,
        {"model": "tiny", "input": "a", "dimensions": 1, "output_dtype": "int8"},
    ),
    "native": (native, {"texts": ["a"], "mode": "passage"}),
    "tei": (tei, {"inputs": "a"}),
    "generate": (generate, {"text": "a"}),
    "cohere": (
        cohere.V1,
        {"model": "tiny", "texts": ["a"], "input_type": "search_query"},
    ),
}


def body_of(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def template_of(speaker: ServerDialect, value: object) -> Template:
    body = body_of(value)
    template = Template.of(body, speaker.decode_request(body, served="tiny"), speaker)
    assert template is not None
    return template


def with_text(value: Any, text: str) -> Any:
    """`value`, its text "a" being another."""
    if isinstance(value, dict):
        return {key: with_text(one, text) for key, one in value.items()}
    if isinstance(value, list):
        return [with_text(one, text) for one in value]
    return text if value == "a" else value


@pytest.mark.parametrize("kind", SPEAKERS)
@settings(max_examples=200, deadline=None)
@given(words=st.text(st.characters(codec="utf-8"), max_size=30))
def test_what_it_takes_for_like_another_asks_for_the_same(kind: str, words: str) -> None:
    speaker, value = SPEAKERS[kind]
    template = template_of(speaker, value)
    body = body_of(with_text(value, words))
    found = template.text_of(body)
    plain = words and words.isprintable() and not {'"', "\\"} & {*words}
    assert found == (words if plain else None)
    if found is not None:
        asked = template.asked
        request = msgspec.structs.replace(asked.request, texts=(found,))
        asked = Asked(request, asked.encoding, asked.dtypes, asked.user, asked.dialect)
        assert asked == speaker.decode_request(body, served="tiny")


@settings(max_examples=500, deadline=None)
@given(data=st.data())
def test_no_bytes_are_taken_for_what_they_are_not(data: st.DataObject) -> None:
    """Whatever stands in a body, spliced from others: what is read of it is what decoding reads."""
    pieces = ['{"model":"tiny","input":"', '"}', '","user":"', "a", " ", '"', "\\", "é", "\t", ","]
    body = b'{"model":"tiny","input":"a","user":"u"}'
    template = Template.of(body, openai.decode_request(body, served="tiny"), openai)
    assert template is not None
    middle = "".join(data.draw(st.lists(st.sampled_from(pieces), max_size=6)))
    ends = [("", ""), ('{"model":"tiny","input":"', '","user":"u"}')]
    before, after = data.draw(st.sampled_from(ends))
    body = (before + middle + after).encode()
    found = template.text_of(body)
    if found is not None:
        assert openai.decode_request(body, served="tiny").request.texts == (found,)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"tiny","input":["a","b"]}',  # two texts
        b'{"model":"tiny","input":[1,2]}',  # none
        b'{"model":"a","input":"a"}',  # which of the two?
        b'{"model":"tiny","input":"input"}',
        b'{"model":"tiny", "input":", "}',
        b'{"model":"tiny","input":"\\u0061","user":"a"}',  # it stands somewhere else
        b'{"model":"tiny","input":"a\\n"}',
    ],
)
def test_where_the_text_stands_must_be_certain(body: bytes) -> None:
    assert Template.of(body, openai.decode_request(body, served="tiny"), openai) is None


def test_little_is_remembered() -> None:
    """No text, and of what anybody may send as much as clients need."""
    template = template_of(openai, {"model": "tiny", "input": "a secret", "user": "u"})
    assert b"secret" not in template.before + template.after
    assert template.asked.request.texts == ()
    for size, kept in ((400, True), (600, False)):
        body = body_of({"model": "tiny", "input": "a", "user": "u" * size})
        asked = openai.decode_request(body, served="tiny")
        assert (Template.of(body, asked, openai) is not None) == kept


def test_what_is_known_is_not_learned_again() -> None:
    known = Known(lambda _: openai, "/v1/embeddings", by_openai=False)
    first = template_of(openai, {"model": "tiny", "input": "a"})
    known.learn(first)
    known.learn(template_of(openai, {"model": "tiny", "input": "another"}))
    known.learn(None)
    assert list(known.templates) == [first]
    for number in range(9):
        known.learn(template_of(openai, {"model": "tiny", "input": "a", "dimensions": number + 1}))
    assert len(known.templates) == 4
    assert known.templates[0].asked.request.dimensions == 9


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"tiny","input":"a secret","input":"a"}',
        b'{"input":"a","model":"a secret","model":"tiny"}',
        b'{"input":"a","model":"tiny","other":[{"b":"a secret","b":1}]}',
    ],
)
def test_a_body_that_says_two_things_is_not_remembered(body: bytes) -> None:
    known = Known(lambda _: openai, "/v1/embeddings", by_openai=False)
    template = Template.of(body, openai.decode_request(body, served="tiny"), openai)
    assert template is not None
    known.learn(template)
    assert not known.templates


def test_a_reply_that_has_the_text_in_it_is_not_learned() -> None:
    class Echoing:
        def encode_response(self, asked: Asked, result: EmbedResult) -> bytes:
            echo = json.dumps(asked.request.texts[0]).encode()
            return echo + openai.encode_response(asked, result)

    echoing: Any = Echoing()
    vectors = np.eye(4, dtype=np.float32)
    result = EmbedResult(vectors, 8, SPEC, lengths=(2,) * 4)
    body = b'{"model":"tiny","input":"a"}'
    template = Template.of(body, openai.decode_request(body, served="tiny"), echoing)
    assert template is not None
    texts = ("another text", "a", "another text" * 2, "an")
    for sent, reply in zip(texts, template.replies(texts, result), strict=True):
        assert reply[0].startswith(json.dumps(sent).encode() + b"{")


@pytest.mark.parametrize("kind", SPEAKERS)
def test_replies_are_what_the_dialect_encodes(kind: str) -> None:
    speaker, value = SPEAKERS[kind]
    template, random = template_of(speaker, value), np.random.default_rng(7)
    dimensions = template.asked.request.dimensions or SPEC.dimensions
    for _ in range(3):
        texts = [f"text {number}" for number in range(5)]
        vectors = random.normal(size=(5, dimensions)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        lengths = tuple(int(n) for n in random.integers(1, 4, 5))
        timings = Timings(*random.uniform(size=3))
        result = EmbedResult(vectors, sum(lengths), SPEC, timings=timings, lengths=lengths)
        replies = template.replies(texts, result)
        for at, reply in enumerate(replies):
            body = body_of(with_text(value, texts[at]))
            alone = EmbedResult(vectors[at : at + 1], lengths[at], SPEC, timings=timings)
            asked = speaker.decode_request(body, served="tiny")
            whole = speaker.encode_response(asked, alone)
            assert shared((200, {}, b"".join(reply))) == shared((200, {}, whole))


async def together(clients: Sequence[Client], texts: Sequence[str]) -> list[Any]:
    """The replies to texts that are sent in one go of the event loop."""
    for client, value in zip(clients, texts, strict=True):
        client.writer.write(text(value))
    return list(await asyncio.gather(*(client.read() for client in clients)))


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The texts of each submission."""
    seen: list[tuple[str, ...]] = []
    submit = FakeProvider.submit

    def spied(self: FakeProvider, texts: tuple[str, ...], **rest: Any) -> Submitted | None:
        seen.append(texts)
        return submit(self, texts, **rest)

    monkeypatch.setattr(FakeProvider, "submit", spied)
    return seen


async def busy(connect: Connect, running: Running, provider: FakeProvider) -> Client:
    """Whose request the provider has in hand: who comes now may wait for others."""
    client = await connect(running)
    for value in ("a", "b"):  # the first goes the whole way, the second teaches the body
        assert (await client.ask(text(value)))[0] == 200
    await hold(provider, client, text("held"))
    return client


async def test_many_at_once_are_one_submission(
    connect: Connect, running: Running, provider: FakeProvider, submitted: list[tuple[str, ...]]
) -> None:
    first = await busy(connect, running, provider)
    clients = [await connect(running) for _ in range(20)]
    texts = [f"text {number}" for number in range(20)]
    waiting = asyncio.ensure_future(together(clients, texts))
    await asyncio.sleep(0.2)
    assert await in_flight(running) == 21
    provider.gate.set()
    replies = await waiting
    assert (await first.read())[0] == 200
    assert submitted[0] == ("held",)
    assert sorted(one for lot in submitted[1:] for one in lot) == sorted(texts)
    assert len(submitted) < 12
    ids = set()
    for value, reply in zip(texts, replies, strict=True):
        whole = await clients[0].ask(text(value, "X-Request-Id: mine"))
        assert shared(reply) == shared(whole)
        ids.add(reply[1][b"x-request-id"])
    assert len(ids) == 20


async def test_bodies_that_come_after_their_heads_are_in_it_too(
    connect: Connect, running: Running, provider: FakeProvider, submitted: list[tuple[str, ...]]
) -> None:
    """As most of Python's clients send them."""
    first = await busy(connect, running, provider)
    clients = [await connect(running) for _ in range(6)]
    for number, client in enumerate(clients):
        client.writer.write(text(f"text {number}").partition(b"{")[0])
    await asyncio.sleep(0.1)
    assert await in_flight(running) == 7
    clients.pop().writer.transport.abort()  # its body never comes
    for number, client in enumerate(clients):
        client.writer.write(b"{" + text(f"text {number}").partition(b"{")[2])
    await asyncio.sleep(0.1)
    assert await in_flight(running) == 6
    provider.gate.set()
    assert [(await client.read())[0] for client in clients] == [200] * 5
    assert (await first.read())[0] == 200
    assert sorted(one for lot in submitted[1:] for one in lot) == [f"text {n}" for n in range(5)]
    assert len(submitted) < 5
    assert await in_flight(running) == 0


async def test_nothing_of_a_lot_waits_for_the_collector_of_circles(
    connect: Connect, running: Running, submitted: list[tuple[str, ...]], provider: FakeProvider
) -> None:
    first = await busy(connect, running, provider)
    clients = [await connect(running) for _ in range(4)]
    with circles() as found:
        replies = asyncio.create_task(together(clients, "abcd"))
        await asyncio.sleep(0.05)
        provider.gate.set()
        assert [status for status, *_ in await replies] == [200] * 4
        await first.read()
        del replies
    assert sorted(one for lot in submitted[1:] for one in lot) == ["a", "b", "c", "d"]
    assert not found & {"Lot", "Answering", "EmbedRequest", "EmbedResult", "Pooled"}


async def in_flight(running: Running) -> int:
    _, body = await running.get("/metrics")
    (line,) = [one for one in body.splitlines() if one.startswith(b"cortex_embed_requests_in_")]
    return int(float(line.split()[-1])) - 1  # the one that asks


async def test_a_lot_that_fails_fails_who_caused_it(
    connect: Connect, running: Running, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = FakeProvider.embed

    async def poisoned(self: FakeProvider, texts: Sequence[str], **rest: Any) -> Pooled:
        found = await embed(self, texts, **rest)
        if "text 3" in texts:
            raise EngineError("Engine failure: poison")
        return found

    monkeypatch.setattr(FakeProvider, "embed", poisoned)
    first = await busy(connect, running, provider)
    clients = [await connect(running) for _ in range(8)]
    waiting = asyncio.ensure_future(together(clients, [f"text {n}" for n in range(8)]))
    await asyncio.sleep(0.1)
    provider.gate.set()
    statuses = [status for status, _, _ in await waiting]
    assert statuses == [200, 200, 200, 500, 200, 200, 200, 200]
    assert (await first.read())[0] == 200
    assert await in_flight(running) == 0


async def test_where_one_needs_more_each_goes_by_itself(
    connect: Connect, running: Running, provider: FakeProvider, submitted: list[tuple[str, ...]]
) -> None:
    first = await busy(connect, running, provider)
    clients = [await connect(running) for _ in range(4)]
    waiting = asyncio.ensure_future(together(clients, ["a", "b", "too long for it to read", "c"]))
    await asyncio.sleep(0.1)
    provider.gate.set()
    replies = await waiting
    assert [status for status, _, _ in replies] == [200] * 4
    assert [headers.get(b"x-truncated") for _, headers, _ in replies] == [None, None, b"1", None]
    assert (await first.read())[0] == 200
    assert max(map(len, submitted)) > 1


async def test_where_a_lot_is_too_much_each_goes_by_itself(
    connect: Connect, running: Running, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[int] = []

    def full(_self: FakeProvider, texts: Sequence[str], **_rest: Any) -> None:
        refused.append(len(texts))
        raise OverloadedError("Overloaded: too many tokens wait.")

    first = await busy(connect, running, provider)
    monkeypatch.setattr(FakeProvider, "submit", full)
    clients = [await connect(running) for _ in range(4)]
    waiting = asyncio.ensure_future(together(clients, ["a", "b", "c", "d"]))
    await asyncio.sleep(0.1)
    assert await in_flight(running) == 5
    provider.gate.set()
    assert [status for status, _, _ in await waiting] == [200] * 4
    assert (await first.read())[0] == 200
    assert sum(refused) == 4
    assert await in_flight(running) == 0


async def test_who_leaves_harms_nobody(
    connect: Connect, running: Running, provider: FakeProvider
) -> None:
    first = await busy(connect, running, provider)
    clients = [await connect(running) for _ in range(6)]
    for number, client in enumerate(clients):
        client.writer.write(text(f"text {number}"))
    await asyncio.sleep(0.1)
    for client in clients[:3]:
        client.writer.close()
    await asyncio.sleep(0.1)
    assert await in_flight(running) == 4
    provider.gate.set()
    for number, client in enumerate(clients[3:], 3):
        status, _, body = await client.read()
        row = np.array(vector(f"text {number}"), dtype=np.float32)
        found = np.array(json.loads(body)["data"][0]["embedding"], dtype=np.float32)
        np.testing.assert_allclose(found, row / np.linalg.norm(row), atol=1e-6)
        assert status == 200
    assert (await first.read())[0] == 200
    assert await in_flight(running) == 0
    _, metrics = await running.get("/metrics")
    assert b'status="499"} 3.0' in metrics


async def test_with_the_last_one_the_work_goes_and_the_next_is_not_lost(
    connect: Connect, running: Running, provider: FakeProvider
) -> None:
    first = await busy(connect, running, provider)
    cancelled = provider.cancelled
    for _ in range(3):
        client = await connect(running)
        client.writer.write(text("c"))
        await client.writer.drain()
        await asyncio.sleep(0.05)
        client.writer.transport.abort()
        await asyncio.sleep(0.05)
    assert provider.cancelled == cancelled + 3
    provider.gate.set()
    assert (await first.read())[0] == 200
    assert (await first.ask(text("d")))[0] == 200


async def test_a_lot_is_no_larger_than_one_encoding(
    connect: Connect,
    running: Running,
    provider: FakeProvider,
    submitted: list[tuple[str, ...]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lots, "MOST", 3)
    first = await busy(connect, running, provider)
    clients = [await connect(running) for _ in range(10)]
    waiting = asyncio.ensure_future(together(clients, ["c"] * 10))
    await asyncio.sleep(0.1)
    provider.gate.set()
    assert {status for status, _, _ in await waiting} == {200}
    assert (await first.read())[0] == 200
    assert max(map(len, submitted)) <= 3
    assert sum(map(len, submitted)) == 11


async def test_a_server_that_stops_answers_a_lot_and_closes(
    connect: Connect, start: Start, provider: FakeProvider
) -> None:
    async with start() as running:
        first = await busy(connect, running, provider)
        clients = [await connect(running) for _ in range(3)]
        waiting = asyncio.ensure_future(together(clients, ["a", "b", "c"]))
        await asyncio.sleep(0.1)
        running.server.stop()
        await asyncio.wait_for(running.report.is_draining.wait(), 5)
        provider.gate.set()
        replies = [await first.read(), *await waiting]
        assert [status for status, _, _ in replies] == [200] * 4
        assert {headers[b"connection"] for _, headers, _ in replies} == {b"close"}
        assert await asyncio.wait_for(running.task, 5) == 0
