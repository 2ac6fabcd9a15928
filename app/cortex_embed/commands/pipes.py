"""stdin and stdout of `rpc` as bare file descriptors: blocking threads, not the event loop.

Windows cannot wait for pipes in the event loop, hence threads everywhere. Descriptors, not
`sys.stdin` and `sys.stdout`: an interpreter that ends waits for the locks of those. Nothing
here may know what a line means.
"""

from __future__ import annotations

import os
import select
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from cortex_embed import stopping
from cortex_embed.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK = 64 * 2**10


def stdin() -> int | None:
    """The descriptor of stdin; None where the process was started without."""
    return None if sys.stdin is None else _binary(sys.stdin.fileno())


def own_stdout() -> int:
    """A descriptor of stdout that nothing else knows; what others print goes to stderr.

    Raises OutputError.
    """
    if sys.stdout is None:
        raise OutputError("stdout is closed; it is where rpc answers, so give it a pipe.")
    own = os.dup(sys.stdout.fileno())
    if sys.stderr is None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    else:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return _binary(own)


def _binary(fd: int) -> int:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.setmode(fd, os.O_BINARY)
    return fd


def chunks(fd: int | None) -> Iterator[bytes]:
    """What can be read of `fd`, as it comes, up to its end. Blocks."""
    while fd is not None:
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:  # a descriptor that the host shares may be non-blocking
            select.select([fd], [], [])
            continue
        except OSError:
            return
        if not chunk:
            return
        yield chunk


class Output:
    """Whole lines to a descriptor. When nobody can read them, the process ends."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def put(self, line: bytes) -> None:
        """Write all of `line`. Blocks while the host does not read."""
        rest = memoryview(line)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                select.select([], [self._fd], [])
            except OSError as why:
                self.lost(why)

    def watch(self, closed: Callable[[], object]) -> None:
        """Call `closed`, in a thread, when the reading end is closed, where the system tells.

        On Windows the next write does.
        """
        if hasattr(select, "poll"):
            threading.Thread(target=self._until_closed, args=(closed,), daemon=True).start()

    def _until_closed(self, closed: Callable[[], object]) -> None:
        poll = select.poll()
        poll.register(self._fd, 0)
        if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll()):
            closed()

    def lost(self, why: OSError | None = None) -> NoReturn:
        """End the process at once: its answers reach nobody."""
        reason = (why.strerror if why else None) or "the host has closed it"
        error = OutputError(f"stdout cannot be written: {reason}.")
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"cortex-embed: error: {error.message}\n")
        stopping.leave(error.exit_code)


class Budget:
    """How much may be in flight: `requests` at a time, and `size` in all; one always may."""

    def __init__(self, requests: int, size: int) -> None:
        self._requests = requests
        self._size = size
        self._count = 0
        self._used = 0
        self._change = threading.Condition()

    def take(self, cost: int) -> None:
        """Block until there is room. For the reading thread only."""
        with self._change:
            self._change.wait_for(lambda: self._has_room(cost))
            self._count += 1
            self._used += cost

    def give(self, cost: int) -> None:
        """Room for others. Never blocks for long."""
        with self._change:
            self._count -= 1
            self._used -= cost
            self._change.notify()

    def _has_room(self, cost: int) -> bool:
        return not self._count or (self._count < self._requests and self._used + cost <= self._size)


def let_go_of_stdout() -> bool:
    """Whether its reader has gone (`… | head -1`), which is no error of ours: nothing more is
    written then, not even by the interpreter's own flush at its end."""
    if sys.stdout is None or not hasattr(select, "poll"):
        return False
    fd, poll = sys.stdout.fileno(), select.poll()
    poll.register(fd, 0)
    # Linux says POLLERR of a pipe that nobody reads, others POLLHUP.
    if not any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
        return False
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, fd)
    os.close(nowhere)
    return True
