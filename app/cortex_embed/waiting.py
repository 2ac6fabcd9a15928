"""Waiting, without polling, until one of several processes has ended or stdin has closed.

Each system has its own way: pidfd and poll on Linux, kqueue on macOS and the BSDs, handles
on Windows. All look alike here: `add_process`, `add_stdin`, `wait`. This module must never
decide what follows from an end (`watch` does), and never block before `wait`.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import time
from contextlib import suppress
from typing import Protocol

from cortex_embed.processes import alive, started

STDIN = "stdin"
_CHUNK = 65_536
# Only where the system has no way to wait for a process.
_TICK = 0.25


class Waiter(Protocol):
    """What a system offers. Add first, then wait, on one thread."""

    def add_process(self, pid: int, why: str) -> bool:
        """Wait for the end of `pid` too; False if there is no such process."""

    def add_stdin(self) -> bool:
        """Wait for the end of stdin too; False if it is neither pipe nor socket."""

    def wait(self) -> str:
        """Block until something has ended: its `why`, or "stdin"."""


def _stream_of(descriptor: int) -> int | None:
    """A duplicate of `descriptor` if a host can be at its other end, else None.

    A terminal is a person's, and /dev/null is at its end from the start.
    """
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return None
    return os.dup(descriptor) if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else None


def _at_end(descriptor: int) -> bool:
    """Read what is there and drop it; whether nothing will come any more."""
    try:
        return not os.read(descriptor, _CHUNK)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True


class _Remembered:
    """A process looked at again and again, told from a later one of the same pid."""

    def __init__(self, pid: int, why: str) -> None:
        self.pid = pid
        self.why = why
        self._started = started(pid)

    def gone(self) -> bool:
        return not alive(self.pid) or started(self.pid) != self._started


class _Remembering:
    """The part of a waiter that looks again and again, for what cannot be waited for."""

    def __init__(self) -> None:
        self._remembered: list[_Remembered] = []

    def _remember(self, pid: int, why: str) -> bool:
        process = _Remembered(pid, why)
        self._remembered.append(process)
        return not process.gone()

    @property
    def _patience(self) -> float | None:
        return _TICK if self._remembered else None

    def _gone(self) -> str:
        return next((one.why for one in self._remembered if one.gone()), "")


if sys.platform == "win32":

    class WindowsWaiter(_Remembering):
        """Process handles; and a thread that reads stdin, since nothing waits for a pipe."""

        _SYNCHRONIZE, _PIPE, _STD_INPUT, _INFINITE, _FAILED = 0x100000, 3, -10, -1, 0xFFFFFFFF

        def __init__(self) -> None:
            import ctypes

            super().__init__()
            self._kernel = ctypes.WinDLL("kernel32", use_last_error=True)
            for name in ("OpenProcess", "CreateEventW", "GetStdHandle"):
                getattr(self._kernel, name).restype = ctypes.c_void_p
            self._handles: list[tuple[int, str]] = []

        def add_process(self, pid: int, why: str) -> bool:
            handle = self._kernel.OpenProcess(self._SYNCHRONIZE, False, pid)
            if not handle:
                return alive(pid) and self._remember(pid, why)
            self._handles.append((handle, why))
            return alive(pid)

        def add_stdin(self) -> bool:
            import ctypes
            import threading

            stdin = ctypes.c_void_p(self._kernel.GetStdHandle(self._STD_INPUT))
            if self._kernel.GetFileType(stdin) != self._PIPE:
                return False
            ended = self._kernel.CreateEventW(None, True, False, None)

            def read() -> None:
                while not _at_end(0):
                    pass
                self._kernel.SetEvent(ctypes.c_void_p(ended))

            self._handles.append((ended, STDIN))
            threading.Thread(target=read, name="stdin", daemon=True).start()
            return True

        def wait(self) -> str:
            import ctypes

            count = len(self._handles)
            handles = (ctypes.c_void_p * count)(*(handle for handle, _ in self._handles))
            while True:
                patience = self._patience
                limit = self._INFINITE if patience is None else int(patience * 1000)
                if count:
                    index: int = self._kernel.WaitForMultipleObjects(count, handles, False, limit)
                    if 0 <= index < count:
                        why: str = self._handles[index][1]
                        return why
                else:
                    time.sleep(_TICK)
                if gone := self._gone():
                    return gone

    def waiter() -> Waiter:
        return WindowsWaiter()

elif sys.platform == "linux":

    class PollWaiter(_Remembering):
        """Process descriptors and stdin in one poll."""

        def __init__(self) -> None:
            super().__init__()
            self._poll = select.poll()
            self._whys: dict[int, str] = {}
            self._stdin: int | None = None

        def add_process(self, pid: int, why: str) -> bool:
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                return False
            except OSError:  # an old kernel, or a sandbox that forbids it
                return self._remember(pid, why)
            self._whys[descriptor] = why
            self._poll.register(descriptor, select.POLLIN)
            return True

        def add_stdin(self) -> bool:
            self._stdin = _stream_of(0)
            if self._stdin is not None:
                self._whys[self._stdin] = STDIN
                self._poll.register(self._stdin, select.POLLIN)
            return self._stdin is not None

        def wait(self) -> str:
            while True:
                patience = self._patience
                events = self._poll.poll(None if patience is None else patience * 1000)
                for descriptor, _ in events:
                    if descriptor != self._stdin or _at_end(descriptor):
                        return self._whys[descriptor]
                if why := self._gone():
                    return why

    def waiter() -> Waiter:
        return PollWaiter()

else:

    class KqueueWaiter(_Remembering):
        """Process events and stdin in one kqueue."""

        def __init__(self) -> None:
            super().__init__()
            self._queue = select.kqueue()
            self._whys: dict[tuple[int, int], str] = {}

        def add_process(self, pid: int, why: str) -> bool:
            event = select.kevent(
                pid,
                select.KQ_FILTER_PROC,
                select.KQ_EV_ADD | select.KQ_EV_ONESHOT,
                select.KQ_NOTE_EXIT,
            )
            try:
                self._queue.control([event], 0)
            except ProcessLookupError:
                return False
            except OSError:  # another user's: it may be seen, not waited for
                return self._remember(pid, why)
            self._whys[pid, select.KQ_FILTER_PROC] = why
            return alive(pid)  # a zombie has had its exit already

        def add_stdin(self) -> bool:
            stream = _stream_of(0)
            if stream is None:
                return False
            self._queue.control([select.kevent(stream, select.KQ_FILTER_READ)], 0)
            self._whys[stream, select.KQ_FILTER_READ] = STDIN
            return True

        def wait(self) -> str:
            while True:
                for event in self._queue.control([], 8, self._patience):
                    is_stdin = event.filter == select.KQ_FILTER_READ
                    if not is_stdin or _at_end(event.ident):
                        return self._whys[event.ident, event.filter]
                if why := self._gone():
                    return why

    def waiter() -> Waiter:
        return KqueueWaiter()


def settle(pid: int, seconds: float) -> bool:
    """Wait at most `seconds` until `pid` is gone; whether it is."""
    process = _Remembered(pid, "")
    deadline = time.monotonic() + seconds
    while not process.gone():
        if time.monotonic() >= deadline:
            return False
        with suppress(InterruptedError):
            time.sleep(0.02)
    return True
