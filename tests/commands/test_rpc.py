"""`rpc` in this process: real pipes, a provider that waits where a test wants it to."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cortex_embed import stopping
from cortex_embed.commands import pipes, rpc
from cortex_embed.config import Settings
from cortex_embed.errors import EngineError
from cortex_embed.service import EmbeddingService, ServedModel
from tests.server.conftest import SPEC, FakeProvider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from cortex_embed.models.artifact import Artifact

TIMEOUT = 10


class HostProgram:
    """The other ends of the pipes."""

    def __init__(self, provider: FakeProvider, settings: Settings) -> None:
        self.stdin, self._write = os.pipe()
        self._read, self._stdout = os.pipe()
        service = EmbeddingService([provider], models=[ServedModel(SPEC, 1, {"precision": "fp32"})])
        self.host = rpc.Host(settings, lambda: service, pipes.Output(self._stdout))
        self._buffer = b""

    def send(self, *lines: object) -> None:
        os.write(self._write, b"".join(json.dumps(line).encode() + b"\n" for line in lines))

    def embed(self, own_id: object, *texts: str, **more: object) -> None:
        self.send({"id": own_id, "method": "embed", "params": {"texts": texts, **more}})

    async def line(self) -> Any:
        while b"\n" not in self._buffer:
            async with asyncio.timeout(TIMEOUT):
                self._buffer += await asyncio.to_thread(os.read, self._read, 1 << 20)
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def end(self) -> None:
        if self._write >= 0:
            os.close(self._write)
            self._write = -1

    def stop_reading(self) -> None:
        os.close(self._read)
        self._read = -1

    def close(self) -> None:
        self.end()
        for fd in (self.stdin, self._read, self._stdout):
            if fd >= 0:
                os.close(fd)


@pytest.fixture(autouse=True)
def no_process_of_ours_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "leave", sys.exit)


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


@asynccontextmanager
async def running(provider: FakeProvider, **settings: Any) -> AsyncIterator[HostProgram]:
    """A host program that ends its stdin at the end, and gets exit code 0."""
    program = HostProgram(provider, Settings(**settings))
    run = asyncio.get_running_loop().create_task(program.host.run(program.stdin))
    try:
        yield program
        program.end()
        assert await asyncio.wait_for(run, TIMEOUT) == 0
        assert provider.closed
    finally:
        program.end()
        run.cancel()
        await asyncio.wait([run], timeout=TIMEOUT)
        program.close()


async def test_ready_comes_first_and_early_requests_are_kept(provider: FakeProvider) -> None:
    provider.load_gate.clear()
    async with running(provider) as program:
        program.embed("early", "a")
        program.send({"id": 2, "method": "ping"}, "no call")
        await asyncio.sleep(0.1)
        provider.load_gate.set()
        ready = await program.line()
        assert ready.pop("pid") == os.getpid()
        assert ready.pop("version")
        assert ready == {
            "event": "ready",
            "v": 1,
            "model": "tiny",
            "dimensions": 8,
            "max_tokens": 16,
            "precision": "fp32",
        }
        answers = [await program.line() for _ in range(3)]
        assert {answer["id"] for answer in answers} == {"early", 2, None}


async def test_answers_come_as_they_are_ready(provider: FakeProvider) -> None:
    provider.gate.clear()
    async with running(provider) as program:
        await program.line()
        program.embed(1, "a", "x" * 20, model="small")
        await asyncio.wait_for(provider.started.wait(), TIMEOUT)
        program.send({"id": 2, "method": "info"}, {"id": 3, "method": "ping"})
        assert await program.line() == {"id": 2, "result": {"precision": "fp32"}}
        assert await program.line() == {"id": 3, "result": {"status": "ok"}}
        provider.gate.set()
        answer = await program.line()
        assert answer["id"] == 1
        assert [len(vector) for vector in answer["result"]["embeddings"]] == [8, 8]
        assert answer["result"]["truncated"] == [{"index": 1, "tokens": 20, "used": 16}]


async def test_an_id_is_used_by_one_request_at_a_time(provider: FakeProvider) -> None:
    provider.gate.clear()
    async with running(provider) as program:
        await program.line()
        program.embed(1, "a")
        program.embed(1, "b")
        program.embed("1", "c")  # another id: a string
        twice = await program.line()
        assert (twice["id"], twice["error"]["code"]) == (1, "duplicate_id")
        provider.gate.set()
        assert {(await program.line())["id"] for _ in range(2)} == {1, "1"}
        program.embed(1, "again")
        assert (await program.line())["result"]["usage"] == {"tokens": 5}


async def test_cancel(provider: FakeProvider) -> None:
    provider.gate.clear()
    async with running(provider) as program:
        await program.line()
        program.embed(1, "a")
        program.send({"id": 2, "method": "cancel", "params": {"id": 1}})
        program.send({"id": 3, "method": "cancel", "params": {"id": "unknown"}})
        answers = {answer["id"]: answer for answer in [await program.line() for _ in range(3)]}
        assert answers[1]["error"]["code"] == "cancelled"
        assert answers[2]["result"] == {"cancelled": True}
        assert answers[3]["result"] == {"cancelled": False}
        assert provider.cancelled == 1
        provider.gate.set()
        program.embed(1, "a")
        assert "result" in await program.line()


async def test_failures_are_answers(
    provider: FakeProvider, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(provider) as program:
        await program.line()
        program.embed(1, "")
        assert (await program.line())["error"]["param"] == "texts[0]"
        provider.failure = EngineError("the engine broke")
        program.embed(2, "secret")
        assert (await program.line())["error"]["code"] == "engine_error"
        provider.failure = ValueError("choked on: secret")
        program.embed(3, "secret")
        why = (await program.line())["error"]
        assert why["code"] == "internal_error"
    logged = "\n".join(caplog.messages)
    assert "ValueError" in logged
    assert "secret" not in logged + json.dumps(why)


async def test_what_cannot_be_encoded_is_answered_all_the_same(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> bytes:
        raise ZeroDivisionError

    async with running(provider) as program:
        await program.line()
        monkeypatch.setattr("cortex_embed.wire.native.encode_response", broken)
        program.embed(1, "a")
        assert (await program.line())["error"]["code"] == "internal_error"
        monkeypatch.setattr("cortex_embed.wire.rpc.decode_line", broken)
        program.embed(2, "a")
        assert await program.line() == {
            "id": None,
            "error": {
                "code": "internal_error",
                "message": "The request failed; stderr has more.",
                "param": None,
            },
        }


async def test_stdin_is_not_read_while_too_much_is_in_flight(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_REQUESTS", 3)
    provider.gate.clear()
    async with running(provider) as program:
        await program.line()
        for n in range(9):
            program.embed(n, "a")
        await asyncio.wait_for(provider.started.wait(), TIMEOUT)
        await asyncio.sleep(0.2)
        assert len(program.host._tasks) == 3
        provider.gate.set()
        assert {(await program.line())["id"] for _ in range(9)} == set(range(9))


async def test_the_end_of_stdin_finishes_what_is_in_flight(provider: FakeProvider) -> None:
    provider.gate.clear()
    async with running(provider) as program:
        await program.line()
        program.embed(1, "a")
        program.end()
        await asyncio.wait_for(provider.started.wait(), TIMEOUT)
        provider.gate.set()
        assert (await program.line())["id"] == 1


async def test_a_signal_refuses_what_is_new(provider: FakeProvider) -> None:
    provider.gate.clear()
    async with running(provider) as program:
        await program.line()
        program.embed(1, "a")
        await asyncio.wait_for(provider.started.wait(), TIMEOUT)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(program.host._ended.wait(), TIMEOUT)
        program.embed(2, "a")
        late = await program.line()
        assert (late["id"], late["error"]["code"]) == (2, "not_ready")
        provider.gate.set()
        assert (await program.line())["id"] == 1


async def test_a_host_that_does_not_read_cannot_hold_the_process(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: asyncio.Queue[int] = asyncio.Queue()
    monkeypatch.setattr(stopping, "leave", left.put_nowait)
    provider.gate.clear()
    async with running(provider, grace_period=0.05) as program:
        await program.line()
        program.embed(1, "a")
        await asyncio.wait_for(provider.started.wait(), TIMEOUT)
        signal.raise_signal(signal.SIGTERM)
        assert await asyncio.wait_for(left.get(), TIMEOUT) == 0
        provider.gate.set()


@pytest.mark.skipif(sys.platform == "win32", reason="a write tells there")
async def test_a_host_that_is_gone_takes_its_work_along(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(
        stopping, "leave", lambda code: loop.call_soon_threadsafe(left.put_nowait, code)
    )
    provider.gate.clear()
    program = HostProgram(provider, Settings())
    run = loop.create_task(program.host.run(program.stdin))
    await program.line()
    program.embed(1, "a")
    await asyncio.wait_for(provider.started.wait(), TIMEOUT)
    program.stop_reading()  # nothing is written yet, nothing ends
    assert await asyncio.wait_for(left.get(), TIMEOUT) == 6
    run.cancel()
    await asyncio.wait([run], timeout=TIMEOUT)
    program.close()


@pytest.mark.parametrize(
    ("failure", "code", "message", "exit_code"),
    [
        ("errors.ModelFileError('damaged')", "model_file", "damaged", 3),
        ("ValueError('secret')", "internal_error", "The start failed: ValueError; stderr", 1),
    ],
)
def test_a_start_that_fails_is_told_to_the_host(
    failure: str, code: str, message: str, exit_code: int
) -> None:
    program = (
        "from cortex_embed import cli, composition, errors\n"
        "class Broken:\n"
        "    def models(self): return [Broken]\n"
        "    origin = 'here'\n"
        "    class spec: id = 'broken'\n"
        f"    async def load(self): raise {failure}\n"
        "composition.build_service = lambda *_: Broken()\n"
        "cli.main(['rpc'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        input='{"id": 1, "method": "embed", "params": {"texts": ["a"]}}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == exit_code
    told = json.loads(done.stdout)
    assert message in told.pop("message")
    assert told == {"event": "error", "v": 1, "code": code, "exit_code": exit_code}


def test_a_process_without_a_network_and_with_a_clean_stdout(tiny_mean: Artifact) -> None:
    """It imports no aiohttp, and what a library prints goes to stderr."""
    code = (
        "import atexit, os, sys\n"
        "from cortex_embed import cli, composition\n"
        "build = composition.build_service\n"
        "def loud(*given):\n"
        "    print('a library says hello', flush=True)\n"
        "    os.write(1, b'so does C code\\n')\n"
        "    return build(*given)\n"
        "composition.build_service = loud\n"
        "atexit.register(lambda: print('modules', *sys.modules, file=sys.stderr))\n"
        f"cli.main(['rpc', '--model', {str(tiny_mean.directory)!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input='{"id": 1, "method": "embed", "params": {"texts": ["a"]}}\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ready, answer = [json.loads(line) for line in done.stdout.splitlines()]
    assert (ready["event"], answer["id"]) == ("ready", 1)
    assert "a library says hello\nso does C code\n" in done.stderr
    modules = done.stderr.splitlines()[-1].split()
    assert "onnxruntime" in modules
    assert not {"aiohttp", "multidict", "yarl"} & set(modules)
    assert not any(name.startswith("cortex_embed.server") for name in modules)
