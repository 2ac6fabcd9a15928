"""A real server on a real port around a provider that computes nothing.

blockbuster is on for every test here: a blocking call on the event loop raises.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import aiohttp
import numpy as np
import numpy.testing  # loaded lazily otherwise, which would block the loop
import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from msgspec import structs

from cortex_embed.config import Settings
from cortex_embed.domain import (
    InputType,
    ModelSpec,
    Pooled,
    Priority,
    Submitted,
    Text,
    Token,
    TokenStates,
    Truncate,
    Truncation,
)
from cortex_embed.errors import EmbedError
from cortex_embed.models.obtain import Progress
from cortex_embed.server.connection import Connection
from cortex_embed.server.fast_path import FastPath, Known
from cortex_embed.server.lifecycle import Server
from cortex_embed.server.lots import Lot
from cortex_embed.server.reporter import StopReason
from cortex_embed.server.sockets import Listener, bind
from cortex_embed.server.unix_sockets import bind_unix
from cortex_embed.service import EmbeddingService, ServedModel
from tests.server.raw import Client, Connect

SPEC = ModelSpec(
    id="tiny",
    repo="Maker/Tiny-Model",
    revision="0",
    family="bert",
    pooling="cls",
    normalize=True,
    dimensions=8,
    max_tokens=16,
    query_prefix="query: ",
    document_prefix="",
    licence="MIT",
    aliases=("small",),
)
TIMEOUT = 20.0
FINGERPRINT = "cx1:of-the-tiny-model"


def vector(text: Text, prefix: str = "") -> list[float]:
    digest = hashlib.sha256(f"{prefix}{text}".encode()).digest()
    return [byte - 127.5 for byte in digest[: SPEC.dimensions]]


class _Submitted(NamedTuple):
    task: asyncio.Task[Pooled]

    def cancel(self) -> None:
        self.task.cancel()


class FakeProvider:
    """A token is a character. Waits at `load_gate` and `gate`, raises `failure` if set."""

    def __init__(self, spec: ModelSpec = SPEC) -> None:
        self.spec = spec
        self.load_gate = asyncio.Event()
        self.gate = asyncio.Event()
        self.load_gate.set()
        self.gate.set()
        self.started = asyncio.Event()
        self.failure: Exception | None = None
        self.load_failure: Exception | None = None
        self.read_as: str | None = None
        self.cancelled = 0
        self.closed = False

    def begin(self) -> None:
        """Nothing to read."""

    async def load(self) -> None:
        await self.load_gate.wait()
        if self.load_failure:
            raise self.load_failure

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        priority: Priority,
    ) -> Pooled:
        del truncate, priority
        self.started.set()
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure:
            raise self.failure
        limit = self.spec.max_tokens
        rows = [vector(text, self.spec.prefix(input_type)) for text in texts]
        cut = [Truncation(i, len(t), limit) for i, t in enumerate(texts) if len(t) > limit]
        used = sum(min(len(text), limit) for text in texts)
        return Pooled(np.array(rows, dtype=np.float32), used, tuple(cut), read_as=self.read_as)

    def submit(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        told: Callable[[Pooled | Exception], object],
    ) -> Submitted | None:
        """`embed` in a task of its own."""
        if max(map(len, texts)) > self.spec.max_tokens or self.read_as:
            return None
        given: Any = {"input_type": input_type, "truncate": truncate, "priority": "interactive"}
        task = asyncio.ensure_future(self.embed(texts, **given))

        def hear(ended: asyncio.Task[Pooled]) -> None:
            if not ended.cancelled():
                why, lengths = ended.exception(), tuple(map(len, texts))
                told(
                    why
                    if isinstance(why, Exception)
                    else structs.replace(ended.result(), lengths=lengths)
                )

        task.add_done_callback(hear)
        return _Submitted(task)

    async def tokenize(
        self, texts: Sequence[str], *, input_type: InputType | None, special: bool
    ) -> list[list[Token]]:
        """A token is a character; its id is its code point. One special token before each text."""
        prefix = self.spec.prefix(input_type)
        head = [Token(1, "[CLS]", special=True)] if special else []
        return [
            head + [Token(ord(c), c, False, i, i + 1) for i, c in enumerate(prefix + text)]
            for text in texts
        ]

    async def detokenize(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        if self.failure:
            raise self.failure
        return ["".join(chr(i) for i in one if not (skip_special and i == 1)) for one in ids]

    async def token_states(
        self, texts: Sequence[Text], *, input_type: InputType | None, truncate: Truncate
    ) -> TokenStates:
        del truncate
        if self.failure:
            raise self.failure
        prefix = self.spec.prefix(input_type)
        states = tuple(
            np.array([vector(c) for c in f"{prefix}{text}"], dtype=np.float32) for text in texts
        )
        return TokenStates(states, sum(map(len, states)))

    async def close(self) -> None:
        self.closed = True


@dataclass
class Recorder:
    """A reporter that remembers, and lets a test wait."""

    events: list[tuple[object, ...]] = field(default_factory=list)
    is_loading: asyncio.Event = field(default_factory=asyncio.Event)
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    is_draining: asyncio.Event = field(default_factory=asyncio.Event)

    def listening(self, listener: Listener, token: str | None, *, keyed: bool = False) -> None:
        del keyed
        self.events.append(("listening", listener.url, token))

    def said(self, line: str) -> None:
        self.events.append(("said", line))

    def progressed(self, progress: Progress) -> None:
        self.events.append(("progressed", progress))

    def loading(self, model: ServedModel) -> None:
        self.events.append(("loading", model.spec.id))
        self.is_loading.set()

    def ready(self, model: ServedModel, seconds: float) -> None:
        assert seconds >= 0
        self.events.append(("ready", model.spec.id))
        self.is_ready.set()

    def draining(self, in_flight: int, reason: StopReason) -> None:
        self.events.append(("draining", in_flight, reason))
        self.is_draining.set()

    def stopped(self) -> None:
        self.events.append(("stopped",))

    def failed(self, error: EmbedError) -> None:
        self.events.append(("failed", error.code))


@dataclass
class Running:
    """A server in this process, and a client session pointed at it."""

    server: Server
    listener: Listener
    task: asyncio.Task[int]
    report: Recorder
    provider: FakeProvider
    http: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return self.server.url

    @property
    def port(self) -> int:
        return self.listener.port

    async def post(
        self, path: str, body: object, **kwargs: object
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Status and headers, and the whole body. bytes go as they are, the rest as JSON."""
        data = io.BytesIO(body if isinstance(body, bytes) else json.dumps(body).encode())
        async with self.http.post(path, data=data, **kwargs) as reply:  # type: ignore[arg-type]
            return reply, await reply.read()

    async def get(self, path: str) -> tuple[aiohttp.ClientResponse, bytes]:
        async with self.http.get(path) as reply:
            return reply, await reply.read()

    async def raw(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)


def listen(settings: Settings) -> Listener:
    return bind_unix(settings.uds) if settings.uds else bind(settings.host, settings.port)


Start = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    with blockbuster_ctx() as detector:
        yield detector


@pytest.fixture
async def provider() -> FakeProvider:
    return FakeProvider()


@pytest.fixture
def start(provider: FakeProvider) -> Start:
    """`async with start(**settings) as running`: answering, and ready unless the load waits."""

    @asynccontextmanager
    async def running(
        *, token: str | None = None, others: Sequence[FakeProvider] = (), **changes: object
    ) -> AsyncIterator[Running]:
        keys = () if token is None else (token,)
        settings = replace(Settings(port=0, grace_period=5.0), **changes)  # type: ignore[arg-type]
        facts = {"id": "tiny", "pooling": "cls"}
        models = [ServedModel(provider.spec, 1_761_500_000, facts, fingerprint=FINGERPRINT)]
        models += [ServedModel(one.spec, 1_761_500_000, {"id": one.spec.id}) for one in others]
        service = EmbeddingService([provider, *others], models=models)
        report = Recorder()
        listener = await asyncio.to_thread(listen, settings)
        server = Server(settings, service, report, listener, keys)
        task = asyncio.get_running_loop().create_task(server.run())
        await asyncio.wait_for(report.is_loading.wait(), TIMEOUT)
        if provider.load_gate.is_set() and not provider.load_failure:
            await asyncio.wait_for(report.is_ready.wait(), TIMEOUT)
        connector = aiohttp.UnixConnector(str(listener.uds)) if listener.uds else None
        async with aiohttp.ClientSession(
            server.url, timeout=aiohttp.ClientTimeout(total=TIMEOUT), connector=connector
        ) as http:
            yield Running(server, listener, task, report, provider, http)
        server.stop()
        for one in (provider, *others):
            one.load_gate.set()
            one.gate.set()
        await asyncio.wait({task}, timeout=TIMEOUT)
        assert task.done()

    return running


@pytest.fixture
async def running(start: Start) -> AsyncIterator[Running]:
    async with start() as one:
        yield one


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connections that are closed in the end."""
    clients: list[Client] = []

    async def opened(running: Running) -> Client:
        clients.append(Client(*await running.raw()))
        return clients[-1]

    yield opened
    for client in clients:
        client.writer.close()
        with suppress(OSError):
            await client.writer.wait_closed()


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[Known]:
    """The requests that went the short way, whatever became of them."""
    seen: list[Known] = []
    answer = FastPath.answer

    async def spied(self: FastPath, known: Known, *rest: Any) -> Any:
        seen.append(known)
        return await answer(self, known, *rest)

    monkeypatch.setattr(FastPath, "answer", spied)
    join = FastPath.join

    def joined(
        self: FastPath, member: Connection, known: Known, body: bytes, began: float
    ) -> Lot | None:
        seen.append(known)
        lot = join(self, member, known, body, began)
        if lot is None or lot._is_over:
            seen.pop()  # it goes that way by itself
        return lot

    monkeypatch.setattr(FastPath, "join", joined)
    return seen
