"""Mutants over real HTTP: one connection that is kept alive, and what may not happen on it."""

from __future__ import annotations

import json
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from cortex_embed.commands.bench_http import Response, ResponseParser
from tests.contract.mutation import Mutant, mutant

PATIENCE = 10.0
"""Seconds for an answer; the slowest good request here takes 0.1."""
_BETWEEN = 50
_NO_MORE = 0.2
"""Seconds after which a server that waits for more than was sent is told that there is none."""


@dataclass
class Report:
    """What a run saw. `faults` is what must be empty."""

    statuses: Counter[int | str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    checks: int = 0


class Connection:
    """Keep-alive HTTP to a port of this machine, opened anew where it was closed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None

    def exchange(self, request: bytes, *, alone: bool = False) -> Response | None:
        """The response, or None where the server hung up. Raises TimeoutError.

        `alone`: on a connection of its own, that ends where the server waits for more.
        """
        if alone:
            self.close()
        fresh = self._socket is None
        stream = self._socket or self._opened()
        try:
            return self._exchange(stream, request, alone)
        except ConnectionError:
            self.close()
            if fresh:
                return None
            return self.exchange(request)  # an idle connection may be closed at any time

    def _opened(self) -> socket.socket:
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def _exchange(self, stream: socket.socket, request: bytes, alone: bool) -> Response | None:
        stream.settimeout(_NO_MORE if alone else PATIENCE)
        stream.sendall(request)
        parser = ResponseParser()
        while True:
            try:
                data = stream.recv(65_536)
            except TimeoutError:
                if not alone or stream.gettimeout() == PATIENCE:
                    raise
                stream.settimeout(PATIENCE)
                stream.shutdown(socket.SHUT_WR)
                continue
            if not data:
                response = parser.end()
                if response is None and not alone and parser.empty:
                    raise ConnectionResetError
                self.close()
                return response
            if response := parser.feed(data):
                if response.closes or alone:
                    self.close()
                return response

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None


def fuzz(port: int, path: str, example: Any, *, seed: str, count: int) -> Report:
    """`count` mutants of `example` to `path`; between them good requests, which must be answered
    as if nothing had been."""
    report = Report()
    connection = Connection(port)
    good = Mutant(-1, json.dumps(example).encode(), how=["good"])
    vector = _vector(connection)
    for number in range(count):
        bad = mutant(f"{seed}:{path}", number, example)
        _send(connection, path, bad, report)
        if number % _BETWEEN == 0 or number == count - 1:
            report.checks += 1
            response = connection.exchange(good.wire(path))
            if response is None or response.status != 200:
                report.faults.append(f"{path}: the good request after {bad} gave {response}")
            if _vector(connection) != vector:
                report.faults.append(f"{path}: another vector after {bad}")
    connection.close()
    return report


def _send(connection: Connection, path: str, bad: Mutant, report: Report) -> None:
    try:
        response = connection.exchange(bad.wire(path), alone=bad.frame)
    except TimeoutError:
        report.faults.append(f"{path}: no answer within {PATIENCE} s to {bad}")
        connection.close()
        return
    report.statuses[response.status if response else "hung up"] += 1
    if response is None:
        if not bad.frame:
            report.faults.append(f"{path}: hung up on {bad}")
    elif response.status >= 500:
        # 503 is the server's word for "not now", which no body can make it say.
        report.faults.append(f"{path}: {response.status} {response.body[:200]!r} to {bad}")
    elif not 200 <= response.status < 500:
        report.faults.append(f"{path}: status {response.status} to {bad}")


def _vector(connection: Connection) -> list[float]:
    """The vector of a fixed text, over a route that never changes."""
    body = json.dumps({"texts": ["the next good request"]}).encode()
    response = connection.exchange(Mutant(-1, body).wire("/embed"))
    assert response is not None
    vector: list[float] = json.loads(response.body)["embeddings"][0]
    return vector
