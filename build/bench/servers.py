"""Start a peer's server, wait until it answers, load it, stop it.

It must never leave a server running, and never reach beyond 127.0.0.1.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Any

from bench.envs import PeerError, clean_environment, prepare
from bench.machine import memory_mb, pin, tree

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bench.engines import Plan
    from bench.models import BenchModel
    from bench.peers import Server

_START_LIMIT = 180.0
_STOP_LIMIT = 30.0
_LOAD_SLACK = 180.0
_MODEL = "bench"


class Running:
    """A server that answers."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, model: str, log: Path) -> None:
        self.pid = process.pid
        self.url = f"http://127.0.0.1:{port}/v1"
        self._process = process
        self._port = port
        self._model = model
        self._log = log

    def load(self, texts: Path, **spec: Any) -> dict[str, Any]:
        """One load to its end. Raises PeerError with the error of client or server."""
        with self.background(texts, **spec) as load:
            return finish(load)

    @contextmanager
    def background(self, texts: Path, **spec: Any) -> Iterator[subprocess.Popen[str]]:
        """A load beside what the body does, gone at its end; `finish` gives its figures."""
        full = {"url": self.url, "model": self._model, "texts": str(texts), "batch": 1} | spec
        command = [sys.executable, "-m", "bench.loadgen", json.dumps(full)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=clean_environment(1)
        ) as load:
            try:
                yield load
            finally:
                load.kill()  # does nothing to one that has ended

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Vectors of `texts`, one request. Raises PeerError."""
        body = json.dumps({"model": self._model, "input": list(texts)})
        status, answer = self._ask("POST", "/v1/embeddings", body)
        if status != 200:
            raise PeerError(f"status {status}: {answer[:300].decode('utf-8', 'replace')}")
        items = sorted(json.loads(answer)["data"], key=lambda item: item["index"])
        return [item["embedding"] for item in items]

    def memory_mb(self, kind: str = "RSS") -> float | None:
        return memory_mb(self.pid, kind)

    def forget_peak(self) -> None:
        """Let the peak count from now on (Linux)."""
        from pathlib import Path

        for pid in tree(self.pid):
            try:
                Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")
            except OSError:
                continue

    def wait_ready(self, path: str) -> float:
        """Seconds until `path` answered 200. Raises PeerError with the end of the log."""
        started = time.monotonic()
        while time.monotonic() - started < _START_LIMIT:
            if self._process.poll() is not None:
                raise PeerError(
                    f"the server ended with status {self._process.returncode}\n{self.tail()}"
                )
            try:
                if self._ask("GET", path)[0] == 200:
                    return time.monotonic() - started
            except (OSError, HTTPException):
                pass
            time.sleep(0.1)
        raise PeerError(f"not ready within {_START_LIMIT:.0f} s\n{self.tail()}")

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=120)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def tail(self) -> str:
        text = self._log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(text.strip().splitlines()[-8:])


def finish(load: subprocess.Popen[str]) -> dict[str, Any]:
    """The figures of a load begun earlier. Raises PeerError."""
    try:
        output, _ = load.communicate(timeout=3600 + _LOAD_SLACK)
    except subprocess.TimeoutExpired:
        load.kill()
        raise PeerError("the load generator did not end") from None
    found: dict[str, Any] = json.loads(output or '{"error": "the load generator died"}')
    if "error" in found:
        raise PeerError(found["error"])
    return found


@contextmanager
def running(plan: Plan, model: BenchModel, server: Server) -> Iterator[Running]:
    """`server` up and ready, stopped at the end. Raises PeerError."""
    for kind in server.needs:
        if kind in model.missing:
            raise PeerError(f"no {kind} file could be made: {model.missing[kind]}")
    python = prepare(server.env, plan.envs)
    port = _free_port()
    places = {
        "python": python,
        "bin": python.parent,
        "port": port,
        "threads": plan.threads,
        "hf": model.hf,
        "gguf": model.gguf,
        "artifact": model.artifact,
    }
    command = [part.format(**places) for part in server.command] + server.flags()
    log = plan.work / "logs" / f"server-{server.env}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=clean_environment(plan.threads),
            preexec_fn=partial(pin, plan.threads),  # noqa: PLW1509 - this process has one thread
        )
    name = _MODEL if server.env != "ours" else model.spec.id
    try:
        up = Running(process, port, name, log)
        up.wait_ready(server.ready)
        yield up
    finally:
        process.terminate()
        try:
            process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
