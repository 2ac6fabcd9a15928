"""`cortex-embed rpc` as a host sees it: two pipes, one of them a dead man's switch."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest

from tests.e2e.process import TIMEOUT, environment, litter

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact
    from tests.e2e.conftest import Serve

pytestmark = pytest.mark.e2e
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
README = Path(__file__).parents[2] / "README.md"
TEXTS = ["hello world", "Grüße aus Köln", "many words " * 200]


class Rpc:
    """A process, read line by line. `home` is its whole world."""

    def __init__(self, command: list[str], home: Path, *, read: bool = True) -> None:
        self.process = subprocess.Popen(
            command,
            env=environment(home),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.home = home
        self._lines: list[bytes] = []
        self._ended = False
        self._news = threading.Condition()
        self._errors: list[bytes] = []
        self._threads = [threading.Thread(target=self._drain_errors)]
        self._threads[0].start()
        if read:
            self.start_reading()

    def start_reading(self) -> None:
        self._threads.append(threading.Thread(target=self._read))
        self._threads[-1].start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def _drain_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    @property
    def stderr(self) -> str:
        return b"".join(self._errors).decode()

    def line(self, timeout: float = TIMEOUT) -> Any:
        with self._news:
            assert self._news.wait_for(lambda: self._lines or self._ended, timeout), self.stderr
            assert self._lines, f"stdout ended: {self.stderr}"
            return json.loads(self._lines.pop(0))

    def lines(self, count: int) -> dict[Any, Any]:
        """So many answers, by id."""
        answers = [self.line() for _ in range(count)]
        return {answer["id"]: answer for answer in answers}

    def write(self, raw: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(raw)
        self.process.stdin.flush()

    def call(self, own_id: object, method: str, **params: object) -> None:
        line = {"id": own_id, "method": method, "params": params}
        self.write(json.dumps(line).encode() + b"\n")

    def ready(self) -> Any:
        event = self.line()
        assert event["event"] == "ready", event
        return event

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self, timeout: float = TIMEOUT) -> int:
        code = self.process.wait(timeout)
        for thread in self._threads:
            thread.join(5)
        return code

    def rest(self) -> list[bytes]:
        """Lines that nobody has asked for; call it once the process has ended."""
        return self._lines

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for thread in self._threads:
            thread.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except OSError:
                    continue


Start = Callable[..., Rpc]


@pytest.fixture
def start(exe: list[str], tmp_path: Path) -> Iterator[Start]:
    """`start(artifact, *flags)` starts `cortex-embed rpc` and returns at once."""
    started: list[Rpc] = []

    def one(model: Artifact, *flags: str, read: bool = True) -> Rpc:
        home = tmp_path / f"rpc{len(started)}"
        home.mkdir()
        command = [*exe, "rpc", "--model", str(model.directory), *flags]
        started.append(Rpc(command, home, read=read))
        return started[-1]

    yield one
    for rpc in started:
        rpc.close()
    for rpc in started:
        assert litter(rpc.home) == []
        assert "Traceback" not in rpc.stderr


def many(count: int) -> list[str]:
    return [f"text {n} " + "with many words " * 40 for n in range(count)]


def test_results_are_those_of_post_embed(start: Start, serve: Serve, model: Artifact) -> None:
    rpc = start(model)
    client = serve(model).ready()
    ready = rpc.ready()
    assert ready["v"] == 1
    assert ready["model"] == model.spec.id
    assert ready["dimensions"] == model.spec.dimensions
    assert ready["max_tokens"] == model.spec.max_tokens
    assert ready["precision"] == "fp32"
    if not os.environ.get("CORTEX_EMBED_EXE"):  # the frozen file's parent process is not the one
        assert ready["pid"] == rpc.process.pid
    rpc.call("info", "info")
    assert rpc.line()["result"] == client.get("/model_info").json
    bodies: list[dict[str, Any]] = [
        {"texts": TEXTS},
        {"texts": TEXTS[:1], "mode": "query", "dimensions": 4},
    ]
    for own_id, body in enumerate(bodies):
        rpc.call(own_id, "embed", **body)
        answer = rpc.line()
        expected = client.post("/embed", body).json
        vectors = expected.pop("embeddings")
        np.testing.assert_allclose(answer["result"].pop("embeddings"), vectors, rtol=0, atol=1e-6)
        assert answer == {"id": own_id, "result": expected}
    assert "truncated" in client.post("/embed", {"texts": TEXTS}).json
    rpc.end()
    assert rpc.exit_code() == 0
    assert rpc.rest() == []


def test_requests_before_ready_and_many_at_once(start: Start, tiny_mean: Artifact) -> None:
    rpc = start(tiny_mean)
    for n in range(100):
        rpc.call(n, "embed", texts=[f"text {n}"])
    rpc.ready()
    answers = rpc.lines(100)
    rpc.call("again", "embed", texts=[f"text {n}" for n in range(100)])
    together = rpc.line()["result"]["embeddings"]
    alone = [answers[n]["result"]["embeddings"][0] for n in range(100)]
    np.testing.assert_allclose(alone, together, rtol=0, atol=1e-6)


def test_bad_lines_are_answered_and_nothing_ends(start: Start, tiny_mean: Artifact) -> None:
    rpc = start(tiny_mean, "--max-body-bytes", "4KiB", "--max-inputs", "3")
    rpc.ready()
    rpc.write(b"nonsense\n\n\r\n[]\n\xff\xfe\n")
    for _ in range(3):
        answer = rpc.line()
        assert answer["id"] is None
        assert answer["error"]["code"] == "invalid_request"
    rpc.call(1, "embed", texts="no list")
    assert rpc.line()["error"]["param"] == "texts"
    rpc.call(2, "embed", texts=["a"] * 4)
    assert rpc.line()["error"]["code"] == "too_many_inputs"
    rpc.call(3, "embed", texts=["x" * 3_000_000])
    oversize = rpc.line()
    assert (oversize["id"], oversize["error"]["code"]) == (3, "payload_too_large")
    assert "the limit is 4096" in oversize["error"]["message"]
    rpc.call(4, "ping")
    assert rpc.line() == {"id": 4, "result": {"status": "ok"}}
    rpc.write(b'{"id": 5, "method": "ping"}')  # the last line has no end
    rpc.end()
    assert rpc.line()["id"] == 5
    assert rpc.exit_code() == 0


@pytest.mark.real
def test_cancel_ends_work_under_way(start: Start, minilm_artifact: Artifact) -> None:
    rpc = start(minilm_artifact)
    rpc.ready()
    rpc.call(1, "embed", texts=many(2000))  # half a minute of both cores
    rpc.call(2, "embed", texts=["a"])
    assert rpc.line()["id"] == 2  # a short request overtakes
    rpc.call(3, "cancel", id=1)
    answers = rpc.lines(2)
    assert answers[1]["error"]["code"] == "cancelled"
    assert answers[3]["result"] == {"cancelled": True}
    rpc.end()
    assert rpc.exit_code(10) == 0


@pytest.mark.real
@pytest.mark.parametrize(
    "number", [None, *([] if sys.platform == "win32" else [signal.SIGTERM, signal.SIGINT])]
)
def test_what_is_in_flight_is_finished(
    start: Start, minilm_artifact: Artifact, number: signal.Signals | None
) -> None:
    rpc = start(minilm_artifact)
    rpc.ready()
    rpc.call(1, "embed", texts=many(24))
    rpc.call(2, "ping")
    assert rpc.line()["id"] == 2
    if number is None:
        rpc.end()
    else:
        rpc.process.send_signal(number)
    assert len(rpc.line()["result"]["embeddings"]) == 24
    assert rpc.exit_code() == 0


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_an_idle_process(
    start: Start, tiny_mean: Artifact, number: signal.Signals
) -> None:
    rpc = start(tiny_mean)
    rpc.ready()
    rpc.process.send_signal(number)
    assert rpc.exit_code(10) == 0
    assert "Stopped" in rpc.stderr


@pytest.mark.parametrize("harm", ["missing", "setting"])
def test_a_start_that_fails_is_an_event(
    exe: list[str], tmp_path: Path, tiny_mean: Artifact, harm: str
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    model = tmp_path / "none" if harm == "missing" else tiny_mean.directory
    rpc = Rpc(
        [*exe, "rpc", "--model", str(model), *(["--threads", "x"] if harm == "setting" else [])],
        home,
    )
    try:
        event = rpc.line()
        code = rpc.exit_code()
    finally:
        rpc.close()
    assert code == event["exit_code"] == (3 if harm == "missing" else 2)
    assert event["event"] == "error"
    assert event["code"] == ("model_file" if harm == "missing" else "usage")
    assert event["message"] in rpc.stderr
    assert rpc.rest() == []


@posix
def test_a_closed_stdout_ends_it(start: Start, tiny_mean: Artifact) -> None:
    rpc = start(tiny_mean, read=False)
    assert rpc.process.stdout is not None
    assert rpc.process.stdout.readline().startswith(b'{"event":"ready"')
    rpc.process.stdout.close()
    rpc.call(1, "ping")
    assert rpc.exit_code(10) == 6
    assert re.search(r"stdout cannot be written: .+\.", rpc.stderr)


def test_a_host_that_does_not_read_is_waited_for(start: Start, tiny_mean: Artifact) -> None:
    """Requests for 40 MB of answers, and no reader: reading stops, and so does growing."""
    rpc = start(tiny_mean, "--max-body-bytes", "64KiB", read=False)
    line = json.dumps({"id": 0, "method": "embed", "params": {"texts": ["a"] * 40}})
    count = 3000

    def send() -> None:
        for n in range(count):
            rpc.write(line.replace('"id": 0', f'"id": {n}').encode() + b"\n")

    sender = threading.Thread(target=send)
    sender.start()
    sender.join(3)
    assert sender.is_alive()
    memory = psutil.Process(rpc.process.pid).memory_info().rss
    rpc.start_reading()
    rpc.ready()
    assert set(rpc.lines(count)) == set(range(count))
    sender.join(10)
    assert memory < 400 * 2**20
    rpc.end()
    assert rpc.exit_code() == 0


_HOST = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
print(child.pid, flush=True)
child.stdout.readline()
child.stdin.write(sys.stdin.buffer.readline())
child.stdin.flush()
print("sent", flush=True)
sys.stdin.buffer.read()
"""


@posix
@pytest.mark.parametrize("texts", [0, pytest.param(2000, marks=pytest.mark.real)])
def test_it_does_not_outlive_its_host(
    exe: list[str], tmp_path: Path, request: pytest.FixtureRequest, texts: int
) -> None:
    """Idle, or with half a minute of work: kill -9 of the host ends it."""
    artifact = request.getfixturevalue("minilm_artifact" if texts else "tiny_mean")
    host = subprocess.Popen(
        [sys.executable, "-c", _HOST, *exe, "rpc", "--model", str(artifact.directory)],
        env=environment(tmp_path),
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert host.stdin is not None
    assert host.stdout is not None
    with host:
        child = psutil.Process(int(host.stdout.readline()))
        family = [child, *child.children(recursive=True)]
        method = "embed" if texts else "ping"
        line = {"id": 1, "method": method, "params": {"texts": many(texts)}}
        host.stdin.write(json.dumps(line).encode() + b"\n")
        host.stdin.flush()
        assert host.stdout.readline() == b"sent\n"
        time.sleep(0.3)
        assert all(process.is_running() for process in family)
        host.kill()
        _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []


def node_host(tmp_path: Path, exe: list[str], artifact: Artifact) -> dict[str, str]:
    """An environment in which `cortex-embed` is what is under test, with the tiny model."""
    programs = tmp_path / "bin"
    programs.mkdir()
    launcher = programs / "cortex-embed"
    quoted = " ".join(f"'{part}'" for part in exe)
    launcher.write_text(f"#!/bin/sh\nexec {quoted} \"$@\" --model '{artifact.directory}'\n")
    launcher.chmod(0o755)
    given = environment(tmp_path)
    return given | {"PATH": f"{programs}{os.pathsep}{given['PATH']}"}


@posix
@pytest.mark.skipif(shutil.which("node") is None, reason="no node on this machine")
def test_the_readmes_node_host(
    exe: list[str], tmp_path: Path, start: Start, tiny_mean: Artifact
) -> None:
    section = README.read_text(encoding="utf-8").partition("## Without a port: rpc")[2]
    found = re.search(r"```js\n(.+?)```", section, re.DOTALL)
    assert found is not None
    script = tmp_path / "host.mjs"
    script.write_text(found[1], encoding="utf-8")
    done = subprocess.run(
        ["node", str(script)],
        env=node_host(tmp_path, exe, tiny_mean),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    shown = [json.loads(line) for line in done.stdout.splitlines()]
    rpc = start(tiny_mean)
    rpc.ready()
    expected = []
    for text in ("one", "two", "three"):
        rpc.call(text, "embed", texts=[text])
        expected += rpc.line()["result"]["embeddings"]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-6)
