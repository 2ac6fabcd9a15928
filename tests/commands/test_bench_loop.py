"""`bench` over HTTP counts every answer once, and no refusal or error as an answer."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from bench import loadgen
from cortex_embed.commands import bench_client, bench_loop
from cortex_embed.commands.bench_loop import HttpTarget, run
from cortex_embed.commands.bench_window import Load
from cortex_embed.errors import TargetError, UsageError
from tests.certificates import needs_openssl, self_signed
from tests.commands.openai_stub import body, request_of, response, server, sockets

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.commands.bench_window import Sample

CLIENTS = pytest.mark.parametrize("clients", [1, 3])


def measured(url: str, load: Load) -> Sample:
    (sample,) = run(HttpTarget(url, "m"), [("one",)], [load])
    return sample


@CLIENTS
def test_every_answer_is_counted_with_its_tokens(clients: int) -> None:
    ticks: list[float] = []
    with server(lambda _: response(body(1, tokens=5))) as url:
        sample = measured(url, Load(clients, 1, 0.4, tick=ticks.append))
    assert sample.requests >= 10
    assert sample.tokens_per_second == pytest.approx(5 * sample.requests_per_second)
    assert sample.p50_ms <= sample.p95_ms <= sample.p99_ms <= sample.max_ms
    assert 0.1 < sum(ticks) <= 0.4 + 1e-6
    assert gc.isenabled()


@CLIENTS
def test_no_request_is_left_unanswered_and_none_is_under_way_twice(clients: int) -> None:
    asked, answered, lock = Counter[socket.socket](), Counter[socket.socket](), threading.Lock()
    overlaps = []

    def serve(connection: socket.socket) -> None:
        while True:
            request_of(connection)
            with lock:
                asked[connection] += 1
            time.sleep(0.02)
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                overlaps.append(connection.recv(1))
            connection.setblocking(True)
            with lock:
                answered[connection] += 1
            connection.sendall(response(body(1)))

    with sockets(serve) as url:
        target = HttpTarget(url, "m")
        target.open([("one",)])
        bench_loop.measure(target, Load(clients, 1, 0.3))
        with lock:
            unanswered = asked - answered
        target.client.close()
    assert not unanswered
    assert len(asked) == clients + 1
    assert overlaps == []


@CLIENTS
def test_refused_requests_are_no_answers_and_their_clients_pause(clients: int) -> None:
    calls = iter(range(1 << 30))
    after: list[float] = []
    refused_at: dict[int, float] = {}

    def serve(connection: socket.socket) -> None:
        while True:
            request_of(connection)
            if (then := refused_at.pop(id(connection), None)) is not None:
                after.append(time.perf_counter() - then)
            if next(calls) % 2:
                connection.sendall(response(b"{}", "429 Too Many Requests"))
                refused_at[id(connection)] = time.perf_counter()
            else:
                connection.sendall(response(body(1)))

    with sockets(serve) as url:
        sample = measured(url, Load(clients, 1, 0.5))
    assert sample.refused > 0
    assert sample.requests > 0
    assert min(after) > 0.015


@CLIENTS
def test_a_server_that_only_refuses_gives_no_figure(
    clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cortex_embed.commands.bench_window._OVERTIME", 0.1)
    calls = iter(range(1 << 30))

    def answer(_: bytes) -> bytes:
        return response(b"", "503 Busy") if next(calls) else response(body(1))

    with server(answer) as url, pytest.raises(TargetError, match="No request was answered"):
        measured(url, Load(clients, 1, 0.2))


@CLIENTS
def test_clients_may_pause(clients: int) -> None:
    closed = []

    def serve(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(response(body(1)))
        closed.append(connection)  # while the client pauses

    with sockets(serve) as url:
        sample = measured(url, Load(clients, 1, 0.5, pause=0.02))
    assert 0 < sample.requests <= clients * (sample.seconds / 0.02 + 1)
    assert len(closed) >= sample.requests


@CLIENTS
def test_a_closing_server_is_connected_to_anew(clients: int) -> None:
    with server(lambda _: response(body(1), "200 OK", "Connection: close")) as url:
        assert measured(url, Load(clients, 1, 0.3)).requests > 0


def test_a_server_of_one_connection_at_a_time_is_measured() -> None:
    alone = threading.Lock()

    def serve(connection: socket.socket) -> None:
        with alone:
            while True:
                request_of(connection)
                connection.sendall(response(body(1)))

    with sockets(serve) as url:
        loads = [Load(1, 1, 0.1), Load(1, 1, 0.1)]
        assert len(run(HttpTarget(url, None), [("one",)], loads)) == 2


@CLIENTS
@needs_openssl
def test_tls(clients: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, tls = self_signed(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    # More than fits one record: what TLS has read ahead, no selector tells of.
    large = body(1) + b" " * 100_000
    with server(lambda _: response(large), tls) as url:
        assert measured(url, Load(clients, 1, 0.3)).requests >= 10
    with server(lambda _: response(body(1), "200 OK", "Connection: close"), tls) as url:
        assert measured(url, Load(clients, 1, 0.3)).requests > 0


def test_one_target_takes_several_loads() -> None:
    with server(lambda _: response(body(2))) as url:
        loads = [Load(1, 2, 0.1), Load(20, 2, 0.1), Load(1, 2, 0.1)]
        samples = run(HttpTarget(url, "m"), [("one", "two")], loads)
    assert [sample.concurrency for sample in samples] == [1, 20, 1]
    assert all(
        sample.texts_per_second == pytest.approx(2 * sample.requests_per_second)
        for sample in samples
    )


def test_the_first_listed_model_is_named() -> None:
    seen = []

    def answer(request: bytes) -> bytes:
        seen.append(request)
        return response(b'{"data": [{"id": "first"}]}' if b"GET /v1/models" in request else body(1))

    with server(answer) as url:
        target = HttpTarget(url, None, headers=["X-Test: yes"])
        run(target, [("one",)], [])
    assert target.title.endswith(", first")
    assert b'"model": "first"' in seen[1]
    assert b"X-Test: yes\r\n" in seen[1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(b'{"error": "no such model"}', "404 Not Found"), "404: .*no such model"),
        (response(b"[1, 2]"), "did not answer as OpenAI's"),
        (response(body(2)), "gave 2 vectors for 1 texts"),
        (b"nonsense\r\n\r\n", r"not HTTP/1\.1"),
    ],
)
def test_wrong_answers_are_errors(answer: bytes, message: str) -> None:
    with server(lambda _: answer) as url, pytest.raises(TargetError, match=message):
        run(HttpTarget(url, "m"), [("one",)], [])


@CLIENTS
@pytest.mark.parametrize(
    ("last", "message"),
    [
        (response(b"broken", "500 Oops"), "500: broken"),
        (response(body(1)) + b"surplus", r"not HTTP/1\.1"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\n", "server closed"),
    ],
)
def test_an_error_amid_the_load_ends_it(clients: int, last: bytes, message: str) -> None:
    calls = iter(range(1 << 30))

    def answer(_: bytes) -> bytes:
        return response(body(1)) if next(calls) < 20 else last

    with server(answer) as url, pytest.raises(TargetError, match=message):
        measured(url, Load(clients, 1, 5.0))
    assert gc.isenabled()


@CLIENTS
def test_a_server_that_falls_silent_is_an_error(
    clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_client, "_PATIENCE", 0.3)
    ticks: list[float] = []
    calls = iter(range(1 << 30))

    def serve(connection: socket.socket) -> None:
        while request_of(connection):
            if next(calls) < 20:
                connection.sendall(response(body(1)))

    with sockets(serve) as url, pytest.raises(TargetError, match="did not answer within"):
        measured(url, Load(clients, 1, 0.2, tick=ticks.append))
    assert 0.1 < sum(ticks) <= 0.2 + 1e-6  # the bar goes on meanwhile


def test_windows_selects_among_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "win32")
    target = HttpTarget("http://127.0.0.1:9/v1", "m")
    with pytest.raises(UsageError, match="at most 500"):
        bench_loop.measure(target, Load(501, 1, 0.1))


def test_the_orchestrators_load_sends_texts_or_one_request(tmp_path: Path) -> None:
    seen = set()

    def answer(request: bytes) -> bytes:
        head, _, sent = request.partition(b"\r\n\r\n")
        seen.add((head.split()[1], b"X-A: b" in head, sent))
        if b"/refused" in head:
            return response(b"gone", "404 Not Found")
        return response(body(1) if b"/embeddings" in head else b"anything")

    texts, one = tmp_path / "texts.json", tmp_path / "body"
    texts.write_text(json.dumps(["a"]), encoding="utf-8")
    one.write_bytes(b"{}")
    with server(answer) as url:
        common = {"url": url, "batch": 1, "seconds": 0.1, "concurrency": 2}
        found = loadgen.load(common | {"texts": str(texts), "model": "m", "pause": 0.01})
        assert (found["concurrency"], found["refused"]) == (2, 0)
        assert found["tokens_per_second"] > 0
        more = {"path": "/x", "body": str(one), "headers": ["X-A: b"]}
        assert loadgen.load(common | more)["tokens_per_second"] is None
        with pytest.raises(TargetError, match="/v1/refused answered 404: gone"):
            loadgen.load(common | more | {"path": "/refused"})
    assert seen == {
        (b"/v1/embeddings", False, b'{"model": "m", "encoding_format": "float", "input": "a"}'),
        (b"/v1/x", True, b"{}"),
        (b"/v1/refused", True, b"{}"),
    }
