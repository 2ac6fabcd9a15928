"""The parent watch with real processes: what ends, how fast, and what it leaves."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_embed.litter import MARKER
from cortex_embed.watch import DEADLINE, Watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and streams")
LIMIT = 2.0
"""Seconds from the host's end to ours: what the sidecar contract promises."""
# 9 would show that nobody ended it.
WAIT = "import time; time.sleep(60); sys.exit(9)"
HEAD = "import os, sys; from cortex_embed.watch import *; w = Watch(); "


class Watched:
    """A process that runs `code` and says when it is armed."""

    def __init__(self, code: str, stdin: int | None = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def ends(self, within: float = LIMIT) -> int:
        """The exit code, `within` seconds from now."""
        return self.process.wait(within)

    def rest(self) -> tuple[str, str]:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        return self.process.stdout.read(), self.process.stderr.read()

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None and not stream.closed:
                stream.close()


@pytest.fixture
def watched() -> Iterator[type[Watched]]:
    started: list[Watched] = []

    class Kept(Watched):
        def __init__(self, code: str, stdin: int | None = subprocess.PIPE) -> None:
            super().__init__(code, stdin)
            started.append(self)

    yield Kept
    for one in started:
        one.close()


@pytest.fixture
def host() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_the_end_of_stdin_ends_it_and_what_came_before_is_dropped(watched: type[Watched]) -> None:
    one = watched(HEAD + "print(w.watch_stdin(), flush=True); w.start(); " + WAIT)
    assert one.line() == "True"
    assert one.process.stdin is not None
    one.process.stdin.write("x" * 300_000)  # more than a pipe holds: it must be read
    one.process.stdin.flush()
    assert one.process.poll() is None
    one.process.stdin.close()
    assert one.ends() == 0
    assert one.rest() == ("", "")


def test_a_socket_as_stdin(watched: type[Watched]) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            one = watched(
                HEAD + "print(w.watch_stdin(), flush=True); w.start(); " + WAIT, theirs.fileno()
            )
        assert one.line() == "True"
        ours.sendall(b"hello")
        assert one.process.poll() is None
    assert one.ends() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_a_process_ends_it(
    watched: type[Watched], host: subprocess.Popen[bytes], number: signal.Signals
) -> None:
    one = watched(
        HEAD + f"w.watch_process({host.pid}, 'parent'); w.start(); print(flush=True); " + WAIT
    )
    one.line()
    assert one.process.poll() is None
    host.send_signal(number)  # and it is not waited for: a zombie is gone too
    assert one.ends() == 0


def test_a_process_that_is_gone_already(
    watched: type[Watched], host: subprocess.Popen[bytes]
) -> None:
    host.kill()
    host.wait()
    one = watched(HEAD + f"w.watch_process({host.pid}, 'parent'); w.start(); " + WAIT)
    assert one.ends(20) == 0


@pytest.mark.parametrize(
    "callback", ["print", "lambda why: (print(why, flush=True), time.sleep(60))"]
)
def test_the_callback_hears_the_reason_and_the_deadline_holds(
    watched: type[Watched], callback: str
) -> None:
    one = watched(
        f"import time, functools; {HEAD}w.watch_stdin(); w.start(); "
        f"w.on_orphaned(functools.partial({callback}, **{{}})); "
        "w.at_exit(lambda: print('cleaned', flush=True)); print(flush=True); " + WAIT
    )
    one.line()
    assert one.process.stdin is not None
    began = time.monotonic()
    one.process.stdin.close()
    if callback != "print":
        assert one.line() == "stdin"
    assert one.ends() == 0
    assert time.monotonic() - began > DEADLINE - 0.1
    assert "cleaned" in one.rest()[0]


def test_a_process_that_stops_by_itself_keeps_its_exit_code(watched: type[Watched]) -> None:
    one = watched(
        f"import threading; {HEAD}stop = threading.Event(); w.watch_stdin(); w.start(); "
        "w.on_orphaned(lambda why: stop.set()); w.at_exit(lambda: print('cleaned', flush=True)); "
        "print(flush=True); stop.wait(); sys.exit(7)"
    )
    one.line()
    assert one.process.stdin is not None
    one.process.stdin.close()
    assert one.ends() == 7
    assert one.rest() == ("cleaned\n", "")


def test_clean_ups_run_latest_first_and_none_can_hold_or_break_it(watched: type[Watched]) -> None:
    one = watched(
        f"import time; {HEAD}w.watch_stdin(); w.start(); "
        "w.at_exit(lambda: print('first', flush=True)); w.at_exit(lambda: time.sleep(60)); "
        "w.at_exit(lambda: 1 / 0); w.at_exit(lambda: print('last', flush=True)); "
        "print(flush=True); " + WAIT
    )
    one.line()
    assert one.process.stdin is not None
    one.process.stdin.close()
    assert one.ends() == 0
    assert one.rest() == ("last\nfirst\n", "")


def test_who_ends_the_process_itself_can_clean_up(watched: type[Watched]) -> None:
    code = (
        f"import threading; {HEAD}stop = threading.Event(); w.watch_stdin(); w.start(); "
        "w.at_exit(lambda: print('cleaned', flush=True)); w.on_orphaned(lambda why: stop.set()); "
        "w.clean(); print(flush=True); stop.wait(); w.clean(); os._exit(3)"
    )
    one = watched(code)
    assert one.line() == ""  # nothing is cleaned while the host lives
    assert one.process.stdin is not None
    one.process.stdin.close()
    assert one.ends() == 3
    assert one.rest() == ("cleaned\n", "")


def one_file(directory: Path, then: str, bootloader: str = "os.getppid()") -> str:
    """Code of an inner process, as one-file programs have it; it makes its own directory."""
    return (
        "import os, sys, time; from pathlib import Path; from cortex_embed.watch import *; "
        f"d = Path({str(directory)!r}, f'_MEI{{{bootloader}:08x}}abcdef'); "
        "(d / 'numpy').mkdir(parents=True); (d / MARKER).touch(); (d / 'numpy/x.so').touch(); "
        "sys.frozen, sys._MEIPASS = True, str(d); w = Watch(); w.start(); "
        + then
        + "print(os.getpid(), flush=True); "
        + WAIT
    )


def bootloader_for(inner: str) -> str:
    """Code of an outer process that starts `inner` and waits for it, as PyInstaller's does."""
    return (
        "import subprocess, sys; "
        f"sys.exit(subprocess.Popen([sys.executable, '-c', {inner!r}], stdin=-3).wait())"
    )


def gone(pid: int, within: float) -> bool:
    from cortex_embed.waiting import settle

    return settle(pid, within)


@pytest.mark.parametrize("then", ["", "w.on_orphaned(lambda why: None); "])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_bootloader_ends_it_and_its_directory(
    watched: type[Watched], tmp_path: Path, then: str, number: signal.Signals
) -> None:
    outer = watched(bootloader_for(one_file(tmp_path, then)))
    inner = int(outer.line())
    directory = tmp_path / f"_MEI{outer.process.pid:08x}abcdef"
    assert (directory / MARKER).exists()
    outer.process.send_signal(number)
    assert gone(inner, LIMIT)
    assert not directory.exists()


def test_both_the_host_and_the_bootloader_end(watched: type[Watched], tmp_path: Path) -> None:
    """Then stdin may be noticed first; the directory goes all the same."""
    inner = one_file(tmp_path, "").replace("w = Watch()", "w = Watch(); w.watch_stdin()")
    outer = watched(bootloader_for(inner).replace("stdin=-3", "stdin=0"))
    pid = int(outer.line())
    outer.process.kill()
    assert outer.process.stdin is not None
    outer.process.stdin.close()
    assert gone(pid, LIMIT)
    assert list(tmp_path.iterdir()) == []


def test_a_bootloader_that_is_gone_before_the_watch_starts(
    watched: type[Watched], tmp_path: Path
) -> None:
    one = watched(one_file(tmp_path, "", bootloader="2**31 - 7"))
    assert one.ends(20) == 0
    assert list(tmp_path.iterdir()) == []


def test_while_the_bootloader_lives_the_directory_is_its_own(
    watched: type[Watched], tmp_path: Path
) -> None:
    one = watched(one_file(tmp_path, "w.clean(); sys.exit(5); "))
    assert one.ends(20) == 5
    assert [p.name for p in tmp_path.iterdir()] == [f"_MEI{os.getpid():08x}abcdef"]


def test_with_nothing_to_watch_there_is_no_thread() -> None:
    before = threading.active_count()
    Watch().start()
    assert threading.active_count() == before


@pytest.mark.parametrize("pid", [0, -5])
def test_no_process_has_such_an_id(pid: int) -> None:
    with pytest.raises(ValueError, match=f"{pid} must be the id of a process"):
        Watch().watch_process(pid, "parent")


def test_it_loads_nothing_that_costs() -> None:
    code = "import sys; import cortex_embed.watch; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    costly = {"asyncio", "subprocess", "shutil", "ctypes", "logging", "socket", "tempfile"}
    assert not costly & set(done.stdout.split())
