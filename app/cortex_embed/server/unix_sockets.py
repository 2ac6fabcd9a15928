"""A Unix socket to listen on: as private as a file, and never one that somebody else serves.

A process that was killed leaves its socket file behind, so one that nobody answers on is
replaced. It must never remove what is not such a file.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cortex_embed.errors import BindError, UsageError
from cortex_embed.server.sockets import BACKLOG, Listener

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PLATFORM: str = sys.platform  # a plain string: mypy would judge by its own platform
_ANSWER_SECONDS = 1.0


def bind_unix(path: Path) -> Listener:
    """Listen on the socket file `path`, made with mode 0600. Raises BindError, UsageError."""
    if _PLATFORM == "win32":
        raise UsageError(
            f"--uds {path}: not on Windows; leave it out (--sidecar listens on 127.0.0.1 with a "
            "fresh token)."
        )
    path = path.absolute()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _alone_in(path):
            _make_room(path)
            usual = os.umask(0o177)
            try:
                listener.bind(str(path))
            finally:
                os.umask(usual)
            listener.listen(BACKLOG)
        listener.setblocking(False)
        return Listener((listener,), "localhost", 0, path, path.lstat().st_ino)
    except OSError as why:
        listener.close()
        reason = why.strerror or str(why)
        raise BindError(
            f"cannot listen on the socket {path}: {reason}; name another place with --uds"
        ) from None
    except BaseException:
        listener.close()
        raise


@contextmanager
def _alone_in(path: Path) -> Iterator[None]:
    """Hold a lock on the directory: of two that find a stale file, one must see the other's."""
    import fcntl

    directory = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _make_room(path: Path) -> None:
    """Remove a socket file that nobody answers on. Raises BindError, OSError."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError(
            f"cannot listen on {path}: it exists and is no socket; name another place with --uds"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_ANSWER_SECONDS)
        # EAGAIN and a timeout are signs of life: a backlog that is full.
        if probe.connect_ex(str(path)) != errno.ECONNREFUSED:
            raise BindError(
                f"the socket {path} is in use; stop that server, or name another with --uds"
            )
    path.unlink()
