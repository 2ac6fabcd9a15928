"""A host program in a test: it starts a sidecar, reads its events, and may neglect it."""

from __future__ import annotations

import http.client
import json
import os
import queue
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.process import TIMEOUT, Reply, environment
from tests.events_schema import checked


class Sidecar:
    """A process of `command`, with pipes to it. Every event is checked against the schema."""

    def __init__(
        self,
        command: Sequence[str],
        home: Path,
        *,
        read_stderr: bool = True,
        more: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.events: list[dict[str, Any]] = []
        self.stderr = b""
        self._lines: queue.Queue[dict[str, Any] | Exception | None] = queue.Queue()
        self.process = subprocess.Popen(
            command,
            env=environment(home) | dict(more or {}),
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
        )
        self._readers = [threading.Thread(target=self._read_events, daemon=True)]
        if read_stderr:
            self._readers.append(threading.Thread(target=self._read_stderr, daemon=True))
        for reader in self._readers:
            reader.start()

    def _read_events(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            try:
                self._lines.put(checked(line.decode()))
            except Exception as why:
                self._lines.put(why)
        self._lines.put(None)

    def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        self.stderr = self.process.stderr.read()

    def next(self, timeout: float = TIMEOUT) -> dict[str, Any] | None:
        """The next event; None once there will be no more."""
        event = self._lines.get(timeout=timeout)
        if isinstance(event, Exception):
            raise event
        if event is not None:
            self.events.append(event)
        return event

    def until(self, name: str) -> dict[str, Any]:
        while event := self.next():
            if event["event"] == name:
                return event
        raise AssertionError(f"no {name!r} among {self.events}; stderr: {self.stderr!r}")

    def rest(self) -> list[dict[str, Any]]:
        """Every event to the end of the process."""
        while self.next():
            pass
        return self.events

    def exit_code(self, timeout: float = TIMEOUT) -> int:
        code = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(5)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for reader in self._readers:
            reader.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue


def ask(event: Mapping[str, Any], method: str, path: str, body: object = None) -> Reply:
    """A request as an event of the server tells how: its address, and its token."""
    headers = {"Authorization": f"Bearer {event['token']}"} if "token" in event else {}
    connection: http.client.HTTPConnection = http.client.HTTPConnection(
        event["host"], event["port"] or None, timeout=TIMEOUT
    )
    if "uds" in event:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(TIMEOUT)
        connection.sock.connect(event["uds"])
    try:
        data = None if body is None else json.dumps(body).encode()
        connection.request(method, path, body=data, headers=headers)
        reply = connection.getresponse()
        return Reply(reply.status, dict(reply.getheaders()), reply.read())
    finally:
        connection.close()


def gone(pid: int, within: float) -> bool:
    """Whether process `pid` has ended (a zombie has) by then."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def program(command: Sequence[str], directory: Path) -> Path:
    """One executable file that is `command`: what a host program starts."""
    if len(command) == 1:
        return Path(command[0])
    script = directory / "cortex-embed"
    words = " ".join(f"'{word}'" for word in command)
    script.write_text(f'#!/bin/sh\nexec {words} "$@"\n', encoding="utf-8")
    os.chmod(script, 0o755)  # noqa: PTH101, S103 - it must be executable
    assert sys.platform != "win32"
    return script
