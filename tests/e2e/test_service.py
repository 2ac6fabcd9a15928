"""What service managers rely on, with the program itself: the definition, and the word "ready"."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_embed.models.artifact import Artifact
from tests.e2e.process import TIMEOUT, Served, environment

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="no Unix sockets in Python there"),
]


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(TIMEOUT)
        yield bound


def heard(manager: socket.socket, wanted: str) -> list[str]:
    """All that was said up to the assignment `wanted`."""
    said: list[str] = []
    while wanted not in said:
        said += manager.recv(4096).decode().split("\n")
    return said


def start(exe: list[str], tmp_path: Path, model: Path, *flags: str) -> Served:
    command = [*exe, "serve", "--port", "0", "--model", str(model), *flags]
    home = tmp_path / "home"
    home.mkdir()
    return Served(command, home, {"NOTIFY_SOCKET": str(tmp_path / "notify")})


def test_a_manager_hears_of_readiness_and_of_the_end(
    exe: list[str], tiny_mean: Artifact, tmp_path: Path, manager: socket.socket
) -> None:
    served = start(exe, tmp_path, tiny_mean.directory)
    try:
        said = heard(manager, "READY=1")
        # Not a moment too early: the next request is answered.
        assert len(served.listening().embed(["a text"])[0]) > 0
        assert any(line.startswith("STATUS=Loading tiny-mean") for line in said)
        served.signal(signal.SIGTERM)
        assert "STOPPING=1" in heard(manager, "STOPPING=1")
        assert served.exit_code() == 0
    finally:
        served.close()


def test_a_failure_is_told_and_readiness_never(
    exe: list[str], tmp_path: Path, manager: socket.socket
) -> None:
    served = start(exe, tmp_path, tmp_path / "none")
    try:
        assert served.exit_code() == 3
        manager.setblocking(False)
        said = manager.recv(4096).decode()
        assert said.startswith("STATUS=Failed: ")
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
    finally:
        served.close()


def test_a_hosts_manager_is_not_told_of_its_sidecar(
    exe: list[str], tiny_mean: Artifact, tmp_path: Path, manager: socket.socket
) -> None:
    served = start(exe, tmp_path, tiny_mean.directory, "--sidecar", "--exit-on-stdin-close=false")
    try:
        served.ready()
        manager.setblocking(False)
        with pytest.raises(BlockingIOError):
            manager.recv(4096)
    finally:
        served.close()


def test_print_names_this_program(exe: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*exe, "service", "print", "--format", "systemd", "--port", "9000", "--uds", "a b"],
        env=environment(tmp_path) | {"CORTEX_EMBED_THREADS": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    (command,) = [line for line in done.stdout.splitlines() if line.startswith("ExecStart=")]
    program = str(Path(exe[0]).absolute())
    assert program in command
    assert command.endswith(f' serve --port=9000 "--uds={os.path.realpath(tmp_path)}/a b"')
    assert "CORTEX_EMBED_THREADS: set in this shell, and NOT seen by the service" in done.stderr
