"""Bind, load, ready, drain, stop: in this process, with clients that behave and that do not."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import time
from typing import TYPE_CHECKING

import aiohttp
import pytest

from cortex_embed import stopping
from cortex_embed.errors import BindError, ModelFileError
from cortex_embed.server import lifecycle
from cortex_embed.server.sockets import bind

if TYPE_CHECKING:
    from tests.server.conftest import FakeProvider, Running, Start

REQUEST = {"texts": ["a"], "input": "a", "model": "tiny"}


def spawn(running: Running, path: str = "/embed") -> asyncio.Task[tuple[int, bytes]]:
    async def send() -> tuple[int, bytes]:
        reply, body = await running.post(path, REQUEST)
        return reply.status, body

    return asyncio.get_running_loop().create_task(send())


async def test_a_whole_life(start: Start, provider: FakeProvider) -> None:
    async with start() as running:
        running.server.stop()
        assert await asyncio.wait_for(running.task, 5) == 0
    assert running.report.events == [
        ("loading", "tiny"),
        ("ready", "tiny"),
        ("draining", 0, "signal"),
        ("stopped",),
    ]
    assert provider.closed
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", running.port)


async def test_the_port_answers_while_the_model_loads(start: Start, provider: FakeProvider) -> None:
    provider.load_gate.clear()
    async with start() as running:
        assert (await running.get("/livez"))[0].status == 200
        reply, body = await running.get("/readyz")
        assert (reply.status, json.loads(body)) == (503, {"status": "loading"})
        assert reply.headers["Retry-After"] == "1"
        reply, body = await running.get("/")
        assert (reply.status, json.loads(body)["status"]) == (200, "loading")
        for path in ("/embed", "/v1/embeddings"):
            reply, body = await running.post(path, REQUEST)
            assert reply.status == 503
            assert reply.headers["Retry-After"] == "1"
            assert b"not_ready" in body
            assert reply.headers["X-Phase"] == "loading"
        assert (await running.get("/v1/models"))[0].status == 200
        provider.load_gate.set()
        await asyncio.wait_for(running.report.is_ready.wait(), 5)
        assert (await running.get("/readyz"))[0].status == 200
        assert (await running.post("/embed", REQUEST))[0].status == 200


async def test_model_that_does_not_load(start: Start, provider: FakeProvider) -> None:
    provider.load_failure = ModelFileError("model.onnx is damaged")
    async with start() as running:
        with pytest.raises(ModelFileError, match="damaged"):
            await asyncio.wait_for(running.task, 5)
    assert ("stopped",) not in running.report.events
    assert provider.closed
    with pytest.raises(OSError, match=r"."):
        await asyncio.open_connection("127.0.0.1", running.port)


async def test_stop_while_loading(
    start: Start, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[int] = []
    monkeypatch.setattr(lifecycle, "leave", left.append)
    provider.load_gate.clear()
    async with start() as running:
        running.server.stop()
        assert await asyncio.wait_for(running.task, 5) == 0
    assert left == [0]
    assert running.report.events[-1] == ("stopped",)
    assert not running.report.is_ready.is_set()


async def test_in_flight_finishes_and_new_work_is_refused(
    start: Start, provider: FakeProvider
) -> None:
    provider.gate.clear()
    async with start() as running:
        waiting = [spawn(running), spawn(running, "/v1/embeddings")]
        await asyncio.wait_for(provider.started.wait(), 5)
        kept_reader, kept_writer = await running.raw()
        kept_writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"200" in await kept_reader.readline()
        await kept_reader.readuntil(b"}")
        late_reader, late_writer = await running.raw()
        late_writer.write(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 16\r\n\r\n")
        await asyncio.sleep(0.05)

        running.server.stop()
        await asyncio.wait_for(running.report.is_draining.wait(), 5)
        assert running.report.events[-1] == ("draining", 3, "signal")
        # A kept-alive connection learns that it is over.
        kept_writer.write(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await asyncio.wait_for(kept_reader.read(), 5)
        assert b" 503 " in answer
        assert b"Connection: close" in answer
        assert b'{"status":"draining"}' in answer
        # A body that was on its way arrives and is answered.
        late_writer.write(b'{"texts": ["b"]}')
        await asyncio.sleep(0.05)
        provider.gate.set()
        assert b" 200 " in await asyncio.wait_for(late_reader.readline(), 5)
        for task in waiting:
            status, _ = await task
            assert status == 200
        assert await asyncio.wait_for(running.task, 5) == 0
        late_writer.close()
        kept_writer.close()


async def test_new_work_on_a_kept_connection_is_refused(
    start: Start, provider: FakeProvider
) -> None:
    provider.gate.clear()
    async with start() as running:
        reader, writer = await running.raw()
        writer.write(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await reader.readuntil(b"}")
        waiting = spawn(running)
        await asyncio.wait_for(provider.started.wait(), 5)
        running.server.stop()
        await asyncio.wait_for(running.report.is_draining.wait(), 5)
        await asyncio.sleep(0)
        writer.write(
            b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"
        )
        answer = await asyncio.wait_for(reader.read(), 5)
        assert b" 503 " in answer
        assert b"Retry-After: 1" in answer
        assert b"Connection: close" in answer
        assert b'"code":"not_ready"' in answer
        provider.gate.set()
        assert (await waiting)[0] == 200
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HT",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{",
    ],
    ids=["silent", "half a head", "idle", "half a body"],
)
async def test_nobody_holds_the_shutdown_beyond_the_grace_period(start: Start, sent: bytes) -> None:
    async with start(grace_period=0.5) as running:
        _, writer = await running.raw()
        writer.write(sent)
        await writer.drain()
        await asyncio.sleep(0.1)
        began = time.monotonic()
        running.server.stop()
        assert await asyncio.wait_for(running.task, 5) == 0
        assert time.monotonic() - began < 2
        writer.close()


async def test_work_that_takes_too_long_is_cut(start: Start, provider: FakeProvider) -> None:
    provider.gate.clear()
    async with start(grace_period=0.3) as running:
        waiting = spawn(running)
        await asyncio.wait_for(provider.started.wait(), 5)
        running.server.stop()
        assert await asyncio.wait_for(running.task, 5) == 0
        assert provider.cancelled == 1
        with pytest.raises(aiohttp.ClientError):
            await waiting


async def test_client_that_never_reads(start: Start) -> None:
    async with start(grace_period=0.5) as running:
        reader, writer = await running.raw()
        body = json.dumps({"texts": [str(n) for n in range(2048)], "normalize": False}).encode()
        head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(60):  # answers pile up until the sockets' buffers are full
            writer.write(head.encode() + body)
        await asyncio.sleep(1)
        began = time.monotonic()
        running.server.stop()
        assert await asyncio.wait_for(running.task, 5) == 0
        assert time.monotonic() - began < 2.5
        writer.transport.abort()


async def test_signal_stops_and_handlers_come_back(start: Start, provider: FakeProvider) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    provider.gate.clear()
    async with start() as running:
        waiting = spawn(running)
        await asyncio.wait_for(provider.started.wait(), 5)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(running.report.is_draining.wait(), 5)
        assert signal.getsignal(signal.SIGTERM) is stopping._second_signal
        provider.gate.set()
        assert (await waiting)[0] == 200
        assert await asyncio.wait_for(running.task, 5) == 0
    assert {number: signal.getsignal(number) for number in before} == before


async def test_the_first_reason_counts_and_a_later_call_only_shortens(
    start: Start, provider: FakeProvider
) -> None:
    provider.gate.clear()
    async with start(grace_period=60.0) as running:
        waiting = spawn(running)
        await asyncio.wait_for(provider.started.wait(), 5)
        running.server.stop("request")
        await asyncio.wait_for(running.report.is_draining.wait(), 5)
        running.server.stop("signal", 90.0)
        running.server.stop("parent", 0.2)
        assert await asyncio.wait_for(running.task, 5) == 0
        assert running.report.events[-2:] == [("draining", 1, "request"), ("stopped",)]
        with pytest.raises(aiohttp.ClientError):
            await waiting


async def test_an_orphan_gets_its_own_short_grace(start: Start, provider: FakeProvider) -> None:
    provider.gate.clear()
    async with start(grace_period=60.0) as running:
        waiting = spawn(running)
        await asyncio.wait_for(provider.started.wait(), 5)
        running.server.stop("stdin", 0.2)
        assert await asyncio.wait_for(running.task, 5) == 0
        assert ("draining", 1, "stdin") in running.report.events
        with pytest.raises(aiohttp.ClientError):
            await waiting


async def test_it_stops_when_unused(start: Start) -> None:
    async with start(idle_exit=0.2) as running:
        assert await asyncio.wait_for(running.task, 5) == 0
    assert running.report.events[-2:] == [("draining", 0, "idle"), ("stopped",)]


async def test_work_in_flight_keeps_it_and_probes_do_not(
    start: Start, provider: FakeProvider
) -> None:
    provider.gate.clear()
    async with start(idle_exit=0.3) as running:
        waiting = spawn(running)
        await asyncio.wait_for(provider.started.wait(), 5)
        await asyncio.sleep(0.6)
        assert not running.report.is_draining.is_set()
        provider.gate.set()
        assert (await waiting)[0] == 200

        async def probe() -> None:
            while True:
                await running.get("/livez")
                await running.get("/readyz")
                await asyncio.sleep(0.02)

        probing = asyncio.get_running_loop().create_task(probe())
        await asyncio.wait_for(running.report.is_draining.wait(), 5)
        probing.cancel()
        await asyncio.wait({probing})
        assert await asyncio.wait_for(running.task, 5) == 0


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
async def test_requests_wait_for_the_model(start: Start, provider: FakeProvider, path: str) -> None:
    provider.load_gate.clear()
    async with start(load_wait=20.0) as running:
        waiting = spawn(running, path)
        await asyncio.sleep(0.1)
        assert not waiting.done()
        provider.load_gate.set()
        assert (await asyncio.wait_for(waiting, 5))[0] == 200


async def test_waiting_for_the_model_has_an_end(start: Start, provider: FakeProvider) -> None:
    provider.load_gate.clear()
    async with start(load_wait=0.1) as running:
        status, body = await asyncio.wait_for(spawn(running), 5)
        assert status == 503
        assert b"loading" in body


async def test_a_stop_ends_the_waiting_for_the_model(
    start: Start, provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifecycle, "leave", lambda _: None)
    provider.load_gate.clear()
    async with start(load_wait=60.0) as running:
        waiting = spawn(running)
        await asyncio.sleep(0.1)
        running.server.stop()
        assert (await asyncio.wait_for(waiting, 5))[0] == 503
        assert await asyncio.wait_for(running.task, 5) == 0


async def test_port_in_use(start: Start) -> None:
    async with start() as running:
        with pytest.raises(BindError) as caught:
            await asyncio.to_thread(bind, "127.0.0.1", running.port)
    assert caught.value.message == (
        f"port {running.port} on 127.0.0.1 is in use; choose another with --port, or --port 0"
    )
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("access_log", [True, False])
async def test_access_log(start: Start, access_log: bool, caplog: pytest.LogCaptureFixture) -> None:
    async with start(access_log=access_log) as running:
        await running.post("/embed", {"texts": ["a secret"]}, headers={"X-Request-Id": "id-7"})
    lines = [r.getMessage() for r in caplog.records if r.name == "cortex_embed.access"]
    assert len(lines) == access_log
    assert all('"POST /embed HTTP/1.1" 200' in line and "id-7" in line for line in lines)
    assert "secret" not in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
