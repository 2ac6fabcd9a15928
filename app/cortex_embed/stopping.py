"""How a long-running command stops: the first signal in order, the second at once.

Shared by the HTTP server and `rpc`. It must never decide what "in order" is.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)
)


@contextmanager
def on_first_signal(stop: Callable[[], object]) -> Iterator[None]:
    """The first signal calls `stop` on the running event loop, the second exits with 128+N.

    The caller's handlers come back at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    loop = asyncio.get_running_loop()

    def first() -> None:
        for number in SIGNALS:
            _forget(loop, number)
            # Not on the loop: it must work while something blocks the loop.
            signal.signal(number, _second_signal)
        stop()

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        try:
            loop.add_signal_handler(number, first)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(first))
    try:
        yield
    finally:
        for number, handler in previous.items():
            _forget(loop, number)
            if handler is not None:  # None: set by C code, not ours to restore
                signal.signal(number, handler)


def leave(code: int) -> NoReturn:
    """End the process although threads are still busy.

    The runtime cannot be interrupted while it builds its session, nor a thread that writes to
    a pipe which nobody reads, and the interpreter would wait for both.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _forget(loop: asyncio.AbstractEventLoop, number: int) -> None:
    with suppress(NotImplementedError):
        loop.remove_signal_handler(number)


def _second_signal(number: int, _frame: FrameType | None) -> None:
    os._exit(128 + number)
