"""A lock between processes, which the system takes back from a holder that dies.

It must never wait in silence, nor trust that a file which is there is held by anyone.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_TICK = 0.05
_RACES = 100


@contextmanager
def held(path: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock file `path`, made if need be; it is gone afterwards. Raises OSError.

    Waits for as long as another process holds it, and tells `on_wait` once who that is.
    """
    descriptor = _acquired(path, on_wait)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        # Before it is given back, so that nobody locks a file that is about to go. Windows
        # removes no open file: there it is tried again.
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)
        if sys.platform == "win32":
            with suppress(OSError):
                path.unlink()


def _acquired(path: Path, on_wait: Callable[[str], None]) -> int:
    told = False
    while True:
        descriptor = _opened(path)
        try:
            while not try_lock(descriptor):
                if not told:
                    on_wait(_holder(descriptor))
                    told = True
                time.sleep(_TICK)
            if _is(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # its last holder has removed it: others lock another file by now


def _opened(path: Path) -> int:
    for attempt in range(_RACES):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # another process has just removed the empty directory
            if attempt == _RACES - 1:
                raise
    raise AssertionError("unreachable")


def _is(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _holder(descriptor: int) -> str:
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        number = os.read(descriptor, 20).decode("ascii")
    except (OSError, UnicodeDecodeError):
        number = ""
    return f"process {number}" if number.isdigit() else "another process"


if sys.platform == "win32":
    # A locked byte cannot be read, so it is not one of those that say who holds the lock.
    _LOCKED_BYTE = 2**20

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this process, until it is closed; False if another one has it."""
        import msvcrt

        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True

else:

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this process, until it is closed; False if another one has it.

        Raises OSError where the file system has no locks.
        """
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
