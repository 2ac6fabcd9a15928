from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cortex_embed import processes

posix = pytest.mark.skipif(sys.platform == "win32", reason="no parent changes there")


def test_this_process() -> None:
    assert processes.alive(os.getpid())
    assert processes.parent_of(os.getpid()) == os.getppid()
    assert processes.started(os.getpid()) >= processes.started(os.getppid()) > 0


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 7, 2**70])
def test_what_is_no_process(pid: int) -> None:
    assert not processes.alive(pid)
    if pid < 2**32:
        assert processes.started(pid) == 0
        assert processes.parent_of(pid) == 0


def test_a_child_that_ended_is_not_alive_even_before_it_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert processes.alive(child.pid)
        assert processes.parent_of(child.pid) == os.getpid()
        first = processes.started(child.pid)
        assert first >= processes.started(os.getpid())
        child.kill()
        if sys.platform != "win32":
            # Leaves the zombie where it is.
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            assert not processes.alive(child.pid)
    assert not processes.alive(child.pid)


def test_a_name_may_hold_what_looks_like_fields(tmp_path: Path) -> None:
    if sys.platform != "linux":
        pytest.skip("/proc")
    program = tmp_path / "a) Z 1 (b"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        try:
            assert processes.alive(child.pid)
            assert processes.parent_of(child.pid) == os.getpid()
        finally:
            child.kill()


def test_without_proc_a_process_can_still_be_asked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("no signals")
    monkeypatch.setattr(processes, "_state", lambda _: None)
    assert processes.alive(os.getpid())
    assert processes.alive(1)  # not ours to signal, unless we are root: it is there
    assert not processes.alive(2**31 - 7)


@pytest.mark.parametrize(
    ("frozen", "place", "expected"),
    [
        (True, "/t/_MEI0000002aAbC123", 42),
        (True, "/t/_MEI0000002a2", 42),  # Windows appends a number
        (True, "/opt/cortex-embed/_internal", 0),  # one-directory
        (True, "/t/_MEI0000002a", 0),
        (True, "/t/_MEIzz00002aAbC123", 0),
        (False, "/t/_MEI0000002aAbC123", 0),
    ],
)
def test_bootloader_pid(
    monkeypatch: pytest.MonkeyPatch, frozen: bool, place: str, expected: int
) -> None:
    monkeypatch.setattr(sys, "frozen", frozen, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", place, raising=False)
    assert processes.bootloader_pid() == expected
    assert (processes.unpacked() is None) == (expected == 0)


def test_from_source_the_host_is_our_parent() -> None:
    assert processes.bootloader_pid() == 0
    assert processes.host_pid() == os.getppid()


@posix
def test_the_host_of_a_one_file_program_is_the_bootloaders_parent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bootloader:
        monkeypatch.setattr(sys, "frozen", True, raising=False)
        monkeypatch.setattr(sys, "_MEIPASS", f"/t/_MEI{bootloader.pid:08x}abcdef", raising=False)
        assert processes.host_pid() == os.getpid()
        bootloader.kill()
    assert processes.host_pid() == 0
