"""Closed-loop load on a server: each connection's next request goes out when its answer is in.

One thread and no event loop: the server shares these cores, and what a future, a task and a
wake-up take would be measured as its time. It must never count an answer whose status it did
not check, nor leave a request unanswered when the next load begins.
"""

from __future__ import annotations

import contextlib
import gc
import selectors
import sys
import time
from collections import deque
from itertools import cycle
from typing import TYPE_CHECKING, Any, Protocol

from cortex_embed.commands.bench_client import Connection, HttpClient
from cortex_embed.commands.bench_http import refused, require_success, tokens_of, vectors_of
from cortex_embed.commands.bench_window import TICK, Load, Sample, Window
from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cortex_embed.commands.bench_http import Response

_MOST_ON_WINDOWS = 500  # of the sockets that its `select` takes, 512
_now = time.perf_counter


class Target(Protocol):
    """What is loaded over HTTP. `where` names it in errors; `requests` go out in turn."""

    client: HttpClient
    where: str
    requests: list[bytes]

    def open(self, batches: Sequence[Sequence[str]]) -> None:
        """Make the requests, and check one answer in full. Raises TargetError."""

    def tokens(self, body: bytes) -> int | None:
        """Tokens that an answer of status 200 names; None where it names none."""


class HttpTarget:
    """Any server that speaks OpenAI's embeddings API."""

    def __init__(
        self, url: str, model: str | None, *, encoding: str = "float", headers: Sequence[str] = ()
    ) -> None:
        self.client = HttpClient(url, headers)
        self.where = self.client.where
        self.title = self.where
        """What was measured, for people; complete once it is open."""
        self.requests: list[bytes] = []
        self._model = model
        self._encoding = encoding

    def open(self, batches: Sequence[Sequence[str]]) -> None:
        import json

        model = self._model or self._first_model()
        if model:
            self.title = f"{self.where}, {model}"
        fields: dict[str, Any] = {"model": model} if model else {}
        fields["encoding_format"] = self._encoding
        for batch in batches:
            texts = batch[0] if len(batch) == 1 else list(batch)
            body = json.dumps(fields | {"input": texts}, ensure_ascii=False).encode()
            self.requests.append(self.client.request("POST", "/embeddings", body))
        response = self.client.send(self.requests[0])
        way_out = "" if self._model else " (Name the model with --bench-model.)"
        require_success(response, self.where, way_out)
        vectors_of(response.body, len(batches[0]), self.where)

    def _first_model(self) -> str | None:
        """The first of GET /models; None where there is no such route (TEI needs no name)."""
        import json

        response = self.client.send(self.client.request("GET", "/models"))
        if response.status != 200:
            return None
        try:
            return str(json.loads(response.body)["data"][0]["id"])
        except (ValueError, LookupError, TypeError):
            return None

    def tokens(self, body: bytes) -> int | None:
        return tokens_of(body)


def run(target: Target, batches: Sequence[Sequence[str]], loads: Iterable[Load]) -> list[Sample]:
    """Open `target`, measure each of `loads`, close it. Raises EmbedError."""
    try:
        target.open(batches)
        return [measure(target, load) for load in loads]
    finally:
        target.client.close()


def measure(target: Target, load: Load) -> Sample:
    """Put `load` on the opened `target`. Raises EmbedError."""
    # A server may serve but so many connections at a time, and this one is idle from now on.
    target.client.close()
    with _no_garbage_collected():
        window = _alone(target, load) if load.concurrency == 1 else _together(target, load)
    return window.sample()


def _alone(target: Target, load: Load) -> Window:
    """The load of one client, which may wait in `recv` for want of anything else to do."""
    requests = cycle(target.requests)
    connection = target.client.connection()
    window = Window(load)

    def waiting() -> None:
        window.look(_now())

    with contextlib.closing(connection):
        while window.ended is None:
            response = connection.exchange(next(requests), waiting)
            taken = _record(target, window, connection, response)
            if connection.received >= window.look_at:
                window.look(connection.received)
            if load.pause or not taken:
                time.sleep(load.rest)
                connection.look()
    return window


def _together(target: Target, load: Load) -> Window:
    if sys.platform == "win32" and load.concurrency > _MOST_ON_WINDOWS:
        raise UsageError(f"--concurrency: on Windows at most {_MOST_ON_WINDOWS} over HTTP.")
    with selectors.DefaultSelector() as selector:
        connections = [target.client.connection(selector) for _ in range(load.concurrency)]
        try:
            return _Crowd(target, load, selector, connections).drive()
        finally:
            for connection in connections:
                connection.close()


class _Crowd:
    """Clients that take turns in one thread: whoever's answer is in goes on."""

    def __init__(
        self,
        target: Target,
        load: Load,
        selector: selectors.BaseSelector,
        connections: list[Connection],
    ) -> None:
        self._target = target
        self._load = load
        self._selector = selector
        self._connections = connections
        self._requests = cycle(target.requests)
        self._resting: deque[tuple[float, Connection]] = deque()
        self._under_way = 0

    def drive(self) -> Window:
        window = Window(self._load)
        for connection in self._connections:
            self._ask(connection)
        while self._under_way or window.ended is None:
            for key, _ in self._selector.select(self._idle_for()):
                connection = key.data
                response = connection.advance()
                if response is not None:
                    self._under_way -= 1
                    taken = _record(self._target, window, connection, response)
                    self._turn(connection, window, taken)
            now = _now()
            if now >= window.look_at:
                window.look(now)
                for connection in self._connections:
                    connection.require_patience(now)
            while self._resting and self._resting[0][0] <= now:
                _, connection = self._resting.popleft()
                if window.ended is None:
                    self._ask(connection)
        return window

    def _ask(self, connection: Connection) -> None:
        self._under_way += 1
        connection.begin(next(self._requests))

    def _turn(self, connection: Connection, window: Window, taken: bool) -> None:
        """What the client does after its answer."""
        if window.ended is not None:
            return
        if taken and not self._load.pause:
            self._ask(connection)
        else:
            # All rest equally long, so that who began first is the first to go on.
            self._resting.append((connection.received + self._load.rest, connection))

    def _idle_for(self) -> float:
        if not self._resting:
            return TICK
        return min(TICK, max(0.0, self._resting[0][0] - _now()))


def _record(target: Target, window: Window, connection: Connection, response: Response) -> bool:
    """Count the answer; whether it was one. Raises TargetError where it is an error."""
    if response.status != 200:
        if not refused(response):
            require_success(response, target.where)
        window.refused(connection.received)
        return False
    seconds = connection.received - connection.sent
    window.answered(connection.received, seconds, target.tokens(response.body))
    return True


@contextlib.contextmanager
def _no_garbage_collected() -> Iterator[None]:
    """Nothing here makes cycles, and a collection would be taken for a slow answer."""
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
