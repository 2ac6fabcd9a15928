"""What a service manager hears, on a real datagram socket."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cortex_embed.errors import BindError
from cortex_embed.models.obtain import Progress
from cortex_embed.server.notify import ManagerReporter
from cortex_embed.server.sockets import Listener
from cortex_embed.service import ServedModel
from tests.server.conftest import SPEC

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets in Python there")

MODEL = ServedModel(SPEC, 0)


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket, and its name as NOTIFY_SOCKET has it."""
    if request.param == "abstract" and sys.platform != "linux":
        pytest.skip("abstract names are Linux's")
    name = f"@cortex-embed-{os.getpid()}" if request.param == "abstract" else f"{tmp_path}/n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(name.replace("@", "\0") if name.startswith("@") else name)
        bound.settimeout(5)
        yield bound, name


def unexpected(line: str) -> None:
    raise AssertionError(line)


def test_a_start_and_a_stop_as_systemd_reads_them(manager: tuple[socket.socket, str]) -> None:
    bound, name = manager
    told = ManagerReporter(name, unexpected)
    listener = Listener((), "127.0.0.1", 8121)
    url = "http://127.0.0.1:8121"
    steps: list[tuple[Callable[[], None], set[str]]] = [
        (lambda: told.listening(listener, "secret"), {f"STATUS=Starting on {url}"}),
        (
            lambda: told.progressed(Progress("download", "tiny", "a", 1_500_000, 3_000_000)),
            {"STATUS=Getting tiny: 1.5 of 3.0 MB (download)"},
        ),
        (lambda: told.loading(MODEL), {"STATUS=Loading tiny"}),
        (lambda: told.ready(MODEL, 0.1), {"READY=1", f"STATUS=Serving tiny on {url}"}),
        (
            lambda: told.draining(2, "signal"),
            {"STOPPING=1", "STATUS=Stopping: finishing 2 request(s)"},
        ),
    ]
    for step, expected in steps:
        step()
        assert set(bound.recv(4096).decode().split("\n")) == expected
    told.said("for people")
    told.stopped()
    bound.setblocking(False)
    with pytest.raises(BlockingIOError):
        bound.recv(4096)


def test_a_failure_is_one_line(manager: tuple[socket.socket, str]) -> None:
    bound, name = manager
    ManagerReporter(name, unexpected).failed(BindError("port 1\nREADY=1"))
    assert bound.recv(4096) == b"STATUS=Failed: port 1 READY=1"


@pytest.mark.parametrize(
    "name", ["/nowhere/at/all", "@nobody-listens-here", "x" * 200, "vsock:2:1"]
)
def test_a_manager_that_cannot_be_reached_is_said_once(name: str) -> None:
    said: list[str] = []
    told = ManagerReporter(name, said.append)
    told.loading(MODEL)
    told.ready(MODEL, 0.1)
    (line,) = said
    assert f"NOTIFY_SOCKET={name}" in line


def test_a_full_queue_does_not_hold_the_server_up(tmp_path: Path) -> None:
    name = str(tmp_path / "full")
    said: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(name)
        told = ManagerReporter(name, said.append)

        def fill() -> None:
            while not said:
                told.loading(MODEL)

        filling = threading.Thread(target=fill, daemon=True)
        filling.start()
        filling.join(10)
        assert not filling.is_alive()
    assert "cannot be told" in said[0]
