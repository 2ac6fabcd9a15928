"""A text stream to a file descriptor whose writers never wait.

A host may leave our stderr or stdout unread: a pipe then fills up, and an ordinary write
would stop the whole server. Here a thread of its own does the waiting; what does not fit is
dropped. It must never raise for what happens at the other end.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_WAITING_BYTES = 2**18


class Outlet(io.TextIOBase):
    """Writes to `fd`, in order. Whole writes are dropped once too much waits, or nobody is there.

    The descriptor stays the caller's: it is never closed here.
    """

    def __init__(self, fd: int, *, encoding: str = "utf-8") -> None:
        self._fd = fd
        self._encoding = encoding
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._gone = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None

    @property
    def encoding(self) -> str:  # type: ignore[override]  # read-only here
        return self._encoding

    def fileno(self) -> int:
        return self._fd

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        """Take `text` along or drop it; returns at once either way."""
        data = text.encode(self._encoding, "replace")
        with self._news:
            if data and not self._gone and self._size + len(data) <= _WAITING_BYTES:
                self._waiting.append(data)
                self._size += len(data)
                if self._thread is None:
                    # A daemon: the end of the process must not wait for a reader either.
                    self._thread = threading.Thread(target=self._drain, name="outlet", daemon=True)
                    self._thread.start()
                self._news.notify_all()
        return len(text)

    def settle(self, seconds: float) -> bool:
        """Wait until everything is written, at most so long; whether it is."""
        with self._news:
            self._news.wait_for(lambda: not self._size or self._gone, seconds)
            return not self._size

    def _drain(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting)
                data = self._waiting.popleft()
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._fd, left) :]
            except OSError:  # the reader is gone, the disk is full: nothing more can be said
                with self._news:
                    self._gone = True
                    self._news.notify_all()
                return
            with self._news:
                self._size -= len(data)
                self._news.notify_all()


@contextmanager
def unblocked_stderr() -> Iterator[None]:
    """Let sys.stderr be an `Outlet` for the time being; at the end, wait briefly for its reader."""
    usual = sys.stderr
    try:
        outlet = Outlet(usual.fileno(), encoding=usual.encoding)
        usual.flush()
    except (AttributeError, OSError, ValueError):  # none, closed, or not a file at all
        yield
        return
    sys.stderr = outlet
    try:
        yield
    finally:
        outlet.settle(0.5)
        sys.stderr = usual
