from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from cortex_embed import waiting

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX streams")


def child() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def test_the_first_end_is_told() -> None:
    waiter = waiting.waiter()
    with child() as one, child() as other:
        assert waiter.add_process(one.pid, "one")
        assert waiter.add_process(other.pid, "other")
        other.kill()
        assert waiter.wait() == "other"
        one.kill()


def test_what_is_gone_already() -> None:
    waiter = waiting.waiter()
    with child() as one:
        one.kill()
    assert not waiter.add_process(one.pid, "one")


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd")
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_or_sandbox_without_process_descriptors(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    waiter = waiting.waiter()
    with child() as one:
        assert waiter.add_process(one.pid, "one")
        one.kill()
        assert waiter.wait() == "one"
    assert not waiter.add_process(one.pid, "gone")


def test_a_later_process_of_the_same_pid_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    with child() as one:
        assert not waiting.settle(one.pid, 0)
        born = iter([1, 2])
        monkeypatch.setattr(waiting, "started", lambda _: next(born))
        assert waiting.settle(one.pid, 0)
        one.kill()


def test_settle_waits_for_the_end() -> None:
    with child() as one:
        threading.Timer(0.2, one.kill).start()
        began = time.monotonic()
        assert waiting.settle(one.pid, 20)
        assert time.monotonic() - began < 10


@pytest.mark.parametrize(("kind", "watched"), [("pipe", True), ("null", False), ("closed", False)])
def test_only_a_stream_with_another_end_is_watched(kind: str, watched: bool) -> None:
    code = "from cortex_embed.waiting import waiter\n"
    if kind == "closed":
        code += "import os; os.close(0)\n"
    code += "w = waiter(); print(w.add_stdin())"
    stdin = subprocess.DEVNULL if kind == "null" else subprocess.PIPE
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdin=None if stdin == subprocess.PIPE else stdin,
        input=b"" if stdin == subprocess.PIPE else None,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.decode().strip() == str(watched)
