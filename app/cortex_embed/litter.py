"""Temp directories that killed one-file processes left behind, and the removal of our own.

PyInstaller's bootloader removes its directory when the inner process ends; killed itself, it
leaves 20 to 60 MB. This module must never remove what might be in use or another program's,
never follow a link, and never raise for what it could not remove: the next start tries again.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cortex_embed.processes import ONE_FILE, alive, bootloader_pid, unpacked

if TYPE_CHECKING:
    from pathlib import Path

MARKER = "cortex-embed.marker"
"""The file in every directory of ours; a running process holds a shared lock on it."""

# A bootloader of another pid namespace (a container that shares our temp directory) looks
# dead while it unpacks. It is never this long without a new file.
_SETTLED = 1.0


def hold(directory: Path) -> int | None:
    """Mark `directory` as in use for as long as the returned descriptor is open."""
    try:
        descriptor = os.open(directory / MARKER, os.O_RDONLY)
    except OSError:
        return None
    _lock(descriptor, exclusive=False)
    return descriptor


def sweep(temp: Path) -> list[str]:
    """Remove what dead processes of this program and user left in `temp`; the names removed.

    Waits a second where something is too young to be judged: call it on a thread.
    """
    removed, young = _pass(temp)
    if young:
        time.sleep(_SETTLED)
        removed += _pass(temp)[0]
    return removed


def remove_tree(directory: Path) -> None:
    """Remove `directory` as far as possible, its marker last. Raises nothing."""
    with suppress(OSError):
        _remove(directory)


def _pass(temp: Path) -> tuple[list[str], bool]:
    removed, young = [], False
    try:
        names = _names(temp)
    except OSError:
        return [], False
    for name in sorted(names):
        if not _left_behind(name):
            continue
        with suppress(OSError):
            if not _is_ours(temp / name):
                continue
            if abs(time.time() - (temp / name).lstat().st_mtime) < _SETTLED:
                young = True
                continue
            _sweep_one(temp / name)
            removed.append(name)
    return removed, young


def _left_behind(name: str) -> bool:
    """Whether `name` is that of a directory whose bootloader has ended."""
    found = ONE_FILE.fullmatch(name)
    own = unpacked()
    if not found or (own is not None and name == own.name):
        return False
    pid = int(found[1], 16)
    # In a container every start may have the same pid: then it is ours now, not theirs.
    return pid == bootloader_pid() or not alive(pid)


def _is_ours(directory: Path) -> bool:
    """Whether this program, run by this user, made `directory`; never by way of a link."""
    status = directory.lstat()
    if sys.platform != "win32" and status.st_uid != os.geteuid():
        return False
    if directory.is_symlink() or not directory.is_dir():
        return False
    held = _names(directory)
    if not held or MARKER in held:
        return True
    # Unpacking was cut short before the marker's turn: then there is nothing in it that is
    # not in ours.
    own = unpacked()
    return own is not None and held <= _names(own)


def _names(directory: Path) -> set[str]:
    return {child.name for child in directory.iterdir()}


def _sweep_one(directory: Path) -> None:
    """Remove `directory` unless a process holds it. Raises OSError."""
    try:
        descriptor = os.open(directory / MARKER, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        _remove(directory)
        return
    try:
        if not _lock(descriptor, exclusive=True):
            raise BlockingIOError(f"{directory} is in use")
        if sys.platform != "win32":
            _remove(directory)
    finally:
        os.close(descriptor)
    if sys.platform == "win32":  # an open file cannot be removed there
        _remove(directory)


if sys.platform == "win32":

    def _lock(descriptor: int, *, exclusive: bool) -> bool:
        """There a file of a running program cannot be removed anyhow."""
        del descriptor, exclusive
        return True

    def _remove(directory: Path) -> None:
        import shutil

        for child in directory.iterdir():
            if child.name != MARKER:
                if child.is_dir() and not child.is_symlink():
                    shutil.rmtree(child)
                else:
                    child.unlink()
        (directory / MARKER).unlink(missing_ok=True)
        directory.rmdir()

else:

    def _lock(descriptor: int, *, exclusive: bool) -> bool:
        import fcntl

        kind = fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except OSError:  # held; or a file system without locks, where caution is the same
            return False
        return True

    _DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

    def _remove(directory: Path) -> None:
        # By descriptors: a directory that is exchanged for a link on the way is not followed.
        root = os.open(directory, _DIRECTORY)
        try:
            _empty(root, keep=MARKER)
            # Last, so that a sweep which is cut short leaves what the next one knows as ours.
            with suppress(FileNotFoundError):
                os.unlink(MARKER, dir_fd=root)
        finally:
            os.close(root)
        directory.rmdir()

    def _empty(root: int, keep: str = "") -> None:
        with os.scandir(root) as entries:
            children = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for name, is_directory in children:
            if name == keep:
                continue
            # Another sweeper may be at it too: what is gone is gone.
            with suppress(FileNotFoundError):
                if not is_directory:
                    os.unlink(name, dir_fd=root)
                    continue
                child = os.open(name, _DIRECTORY, dir_fd=root)
                try:
                    _empty(child)
                finally:
                    os.close(child)
                os.rmdir(name, dir_fd=root)
