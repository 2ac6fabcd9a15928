"""A real `cortex-embed` process, and a plain HTTP client for it. Never waits without a limit."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TIMEOUT = 30.0


class Served:
    """A `serve` process. `home` is its whole world: home and temp directories lie in it.

    `more` goes into its environment.
    """

    def __init__(
        self, command: Sequence[str], home: Path, more: Mapping[str, str] | None = None
    ) -> None:
        self.home = home
        self._lines: list[str] = []
        self._news = threading.Condition()
        self.process = subprocess.Popen(
            command,
            env={**environment(home), **(more or {})},
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._lines.append("")
            self._news.notify_all()

    @property
    def stderr(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str, timeout: float = TIMEOUT) -> re.Match[str]:
        """The first match in stderr, as soon as it is there."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                text = "".join(self._lines)
                if found := re.search(pattern, text):
                    return found
                left = deadline - time.monotonic()
                ended = bool(self._lines) and not self._lines[-1]
                assert left > 0 and not ended, f"no {pattern!r} in:\n{text}"  # noqa: PT018
                self._news.wait(left)

    def listening(self) -> Client:
        return Client(int(self.wait_for(r"Listening on http://127\.0\.0\.1:(\d+)")[1]))

    def ready(self) -> Client:
        client = self.listening()
        self.wait_for("Model ready")
        return client

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def exit_code(self, timeout: float = TIMEOUT) -> int:
        code = self.process.wait(timeout)
        self._reader.join(5)
        return code

    def stdout(self) -> str:
        """Everything written to stdout; call it once the process has ended."""
        assert self.process.stdout is not None
        return self.process.stdout.read()

    def litter(self) -> list[str]:
        """Files left in the process's home or temp directory."""
        return litter(self.home)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        self._reader.join(5)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Client:
    """Plain HTTP/1.1 to a port of this machine, one connection per call."""

    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, method: str, path: str, body: object = None) -> Reply:
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body=data, headers=dict(self.headers))
            reply = connection.getresponse()
            return Reply(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def get(self, path: str) -> Reply:
        return self.call("GET", path)

    def post(self, path: str, body: object) -> Reply:
        return self.call("POST", path, body)

    def embed(self, texts: Sequence[str], **more: object) -> list[list[float]]:
        reply = self.post("/embed", {"texts": list(texts), **more})
        assert reply.status == 200, reply.body
        vectors: list[list[float]] = reply.json["embeddings"]
        return vectors

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=TIMEOUT)


def litter(home: Path) -> list[str]:
    """Files below `home`, but for the one-file form's documented cache of libraries."""
    files = (path for path in home.rglob("*") if not path.is_dir())
    return [str(path) for path in files if "unpacked" not in path.relative_to(home).parts]


def environment(home: Path) -> dict[str, str]:
    """What a process needs to run, and nothing of the person who runs the tests."""
    temp = home / "temp"
    temp.mkdir(parents=True, exist_ok=True)
    kept = ("PATH", "PYTHONPATH", "SYSTEMROOT", "LD_LIBRARY_PATH", "LANG")
    return {name: os.environ[name] for name in kept if name in os.environ} | {
        "HOME": str(home),
        "USERPROFILE": str(home),
        "LOCALAPPDATA": str(home),
        "TMPDIR": str(temp),
        "TEMP": str(temp),
        "TMP": str(temp),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }


def command() -> list[str]:
    """What starts the program: the frozen one if CORTEX_EMBED_EXE names it, else this source."""
    frozen = os.environ.get("CORTEX_EMBED_EXE")
    return [frozen] if frozen else [sys.executable, "-m", "cortex_embed"]


def read_response(stream: socket.socket) -> bytes:
    """One whole HTTP response with a Content-Length, or what came before the peer closed."""
    received = b""
    while b"\r\n\r\n" not in received:
        chunk = stream.recv(65536)
        if not chunk:
            return received
        received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while length and len(body) < int(length[1]) and (chunk := stream.recv(65536)):
        body += chunk
    return head + b"\r\n\r\n" + body
