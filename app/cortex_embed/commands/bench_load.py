"""Closed-loop load: C clients that each send their next request when the last is answered.

The window opens while all clients are already busy and closes while they still are; requests
are counted by when they end, so neither end of the run bends the figure. It must never count
warm-up, nor a refused request as an answered one.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from cortex_embed.commands.bench_http import (
    HttpClient,
    refused,
    require_success,
    tokens_of,
    vectors_of,
)
from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import NotReadyError, OverloadedError, TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.service import EmbeddingService

    Batch = Sequence[str]

_WARM_SHARE = 0.2
_WARM_MOST = 2.0
_ENOUGH = 10
_OVERTIME = 20.0
_REFUSED_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Answer:
    """One request's end. `tokens` is None where the target does not say.

    `seconds` from the request sent to the whole answer received; None where nothing is sent.
    """

    tokens: int | None
    refused: bool = False
    seconds: float | None = None


class Target(Protocol):
    """What is measured."""

    @property
    def title(self) -> str:
        """What was measured, for people; complete once it is open."""

    async def open(self, batches: Sequence[Batch]) -> None:
        """Get ready, and check one answer in full. Raises EmbedError."""

    async def send(self, slot: int, number: int) -> Answer:
        """Have batch `number` (modulo their count) embedded by client `slot`."""

    async def close(self) -> None: ...


class ServiceTarget:
    """The service in this process: no socket, no JSON."""

    def __init__(self, service: EmbeddingService) -> None:
        self._service = service
        self._requests: list[EmbedRequest] = []

    @property
    def title(self) -> str:
        model = self._service.models()[0]
        facts = model.facts
        # Not before it is loaded: which engine can run it may turn out then.
        how = [facts["precision"]] + ([f"engine {facts['engine']}"] if "engine" in facts else [])
        reason = f": {facts['engine_reason']}" if facts.get("engine_reason") else ""
        return f"in process, {model.spec.id} ({', '.join(how)}{reason})"

    async def open(self, batches: Sequence[Batch]) -> None:
        await self._service.load()
        self._requests = [EmbedRequest(texts=tuple(batch)) for batch in batches]
        await self._service.embed(self._requests[0])

    async def send(self, slot: int, number: int) -> Answer:
        request = self._requests[number % len(self._requests)]
        try:
            return Answer((await self._service.embed(request)).tokens)
        except (OverloadedError, NotReadyError):
            return Answer(None, refused=True)

    async def close(self) -> None:
        await self._service.close()


class HttpTarget:
    """Any server that speaks OpenAI's embeddings API."""

    def __init__(
        self, url: str, model: str | None, *, encoding: str = "float", headers: Sequence[str] = ()
    ) -> None:
        self._client = HttpClient(url, headers)
        self.title = self._client.where
        self._model = model
        self._encoding = encoding
        self._requests: list[bytes] = []

    async def open(self, batches: Sequence[Batch]) -> None:
        import json

        model = self._model or await self._first_model()
        if model:
            self.title = f"{self._client.where}, {model}"
        fields: dict[str, Any] = {"model": model} if model else {}
        fields["encoding_format"] = self._encoding
        for batch in batches:
            texts = batch[0] if len(batch) == 1 else list(batch)
            body = json.dumps(fields | {"input": texts}, ensure_ascii=False).encode()
            self._requests.append(self._client.request("POST", "/embeddings", body))
        response = await self._client.send(0, self._requests[0])
        way_out = "" if self._model else " (Name the model with --bench-model.)"
        require_success(response, self._client.where, way_out)
        vectors_of(response.body, len(batches[0]), self._client.where)

    async def _first_model(self) -> str | None:
        """The first of GET /models; None where there is no such route (TEI needs no name)."""
        import json

        response = await self._client.send(0, self._client.request("GET", "/models"))
        if response.status != 200:
            return None
        try:
            return str(json.loads(response.body)["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            return None

    async def send(self, slot: int, number: int) -> Answer:
        request = self._requests[number % len(self._requests)]
        response = await self._client.send(slot, request)
        if refused(response):
            return Answer(None, refused=True)
        require_success(response, self._client.where)
        return Answer(tokens_of(response.body), seconds=response.seconds)

    async def close(self) -> None:
        await self._client.close()


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the table. Rates are per second, latencies in milliseconds."""

    concurrency: int
    seconds: float
    requests: int
    refused: int
    requests_per_second: float
    texts_per_second: float
    tokens_per_second: float | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


@dataclass(slots=True)
class _Window:
    """Counts what ends between `opens` and the close."""

    opens: float
    closes: float
    batch: int
    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    tokens: int = 0
    tokens_known: bool = True
    ended: float | None = None

    def record(self, started: float, now: float, answer: Answer) -> None:
        if now < self.opens or self.ended is not None:
            return
        if answer.refused:
            self.refused += 1
        else:
            self.latencies.append(now - started if answer.seconds is None else answer.seconds)
            self.tokens += answer.tokens or 0
            self.tokens_known = self.tokens_known and answer.tokens is not None
        # A slow target gets overtime until a few requests have ended.
        if now >= self.closes and (
            len(self.latencies) >= _ENOUGH or now >= self.closes + _OVERTIME
        ):
            self.ended = now

    def sample(self, concurrency: int) -> Sample:
        seconds = (self.ended or self.closes) - self.opens
        count = len(self.latencies)
        if not count:
            raise TargetError(
                f"No request was answered in {seconds:.0f} s at concurrency {concurrency} "
                f"({self.refused} were refused). Use a longer --duration or less --concurrency."
            )
        ordered = sorted(self.latencies)
        return Sample(
            concurrency=concurrency,
            seconds=seconds,
            requests=count,
            refused=self.refused,
            requests_per_second=count / seconds,
            texts_per_second=count * self.batch / seconds,
            tokens_per_second=self.tokens / seconds if self.tokens_known else None,
            p50_ms=1000 * percentile(ordered, 50),
            p95_ms=1000 * percentile(ordered, 95),
            p99_ms=1000 * percentile(ordered, 99),
            max_ms=1000 * ordered[-1],
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of `ordered` that `share` percent of them do not exceed (nearest rank)."""
    rank = -(-len(ordered) * share // 100)
    return ordered[max(0, int(rank) - 1)]


async def measure(
    target: Target,
    *,
    concurrency: int,
    batch: int,
    seconds: float,
    pause: float = 0.0,
    tick: Callable[[float], None] = lambda _: None,
) -> Sample:
    """Load the opened `target` for `seconds`, after a warm-up that is not counted.

    `pause` is what a client waits between its requests; `tick` hears of every passed part of a
    second, warm-up excluded. Raises TargetError, or whatever a request fails with.
    """
    opens = time.perf_counter() + min(_WARM_MOST, _WARM_SHARE * seconds)
    window = _Window(opens, opens + seconds, batch)
    counter = iter(range(1 << 62))

    async def client(slot: int) -> None:
        while window.ended is None:
            started = time.perf_counter()
            answer = await target.send(slot, next(counter))
            window.record(started, time.perf_counter(), answer)
            if answer.refused or pause:
                await asyncio.sleep(pause or _REFUSED_PAUSE)

    async def clock() -> None:
        seen = opens
        while window.ended is None:
            await asyncio.sleep(0.1)
            now = min(time.perf_counter(), window.closes)
            if now > seen:
                tick(now - seen)
                seen = now

    try:
        async with asyncio.TaskGroup() as group:
            clients = [group.create_task(client(slot)) for slot in range(concurrency)]
            ticker = group.create_task(clock())
            await asyncio.wait(clients, return_when=asyncio.FIRST_EXCEPTION)
            ticker.cancel()
    except* Exception as failures:
        raise _first(failures) from None
    return window.sample(concurrency)


def _first(failures: BaseExceptionGroup[Exception]) -> Exception:
    why = failures.exceptions[0]
    return _first(why) if isinstance(why, BaseExceptionGroup) else why
