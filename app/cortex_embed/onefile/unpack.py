"""Files of a blob onto the disk, once per build: into a cache directory named by content.

A start that finds them there does no work. Two starters at once, a full disk, a cache that
cannot be written, is not ours or may not be executed from: each ends in intact files, or in
an error that names the way out, never in half a directory under the final name.
"""

from __future__ import annotations

import os
import shutil
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.config import unpack_dir
from cortex_embed.errors import ModelFileError, UnpackError

if TYPE_CHECKING:
    from typing import BinaryIO

    from cortex_embed.onefile.blob import Entry, Index

_CHUNK = 4 * 2**20
_WAY_OUT = (
    "Free some space, or name a directory on a disk that allows executing files in "
    "CORTEX_EMBED_UNPACK_DIR."
)


def unpacked(executable: Path, index: Index, *, run: bool) -> Path:
    """The directory that holds the files of `index`; `run`: they are libraries to be loaded.

    Raises UnpackError, and ModelFileError for a damaged executable.
    """
    problems = []
    try:
        directory = unpack_dir() / index.key
        if _intact(directory, index, run=run):
            return directory
        _sweep(directory.parent)
        return _unpack(executable, index, directory, run=run)
    except OSError as why:
        problems.append(f"{why.filename or unpack_dir()}: {why.strerror or why}")
    # The directory of this very start, which the bootloader deletes at its end.
    directory = Path(sys._MEIPASS) / f"blob-{index.key}"  # type: ignore[attr-defined]
    try:
        return _unpack(executable, index, directory, run=run)
    except OSError as why:
        problems.append(f"{why.filename or directory}: {why.strerror or why}")
    size = sum(entry.size for entry in index.files.values())
    raise UnpackError(
        f"cannot unpack {size / 1e6:.0f} MB of libraries or weights ({'; '.join(problems)}). "
        + _WAY_OUT
    )


def _intact(directory: Path, index: Index, *, run: bool) -> bool:
    """Whether `directory` is ours and complete. It is renamed into place whole, so sizes do.

    Raises OSError where it can never be used.
    """
    try:
        found = directory.stat(follow_symlinks=False)
    except FileNotFoundError:
        return False
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        raise PermissionError(0, "belongs to or is writable by another user", str(directory))
    _refuse_noexec(directory, run=run)
    for path, entry in index.files.items():
        try:
            if (directory / path).stat().st_size != entry.size:
                break
        except OSError:
            break
    else:
        return True
    # A cleaner took a part of it: out of the way, and once more.
    shutil.rmtree(directory, ignore_errors=True)
    return False


def _refuse_noexec(directory: Path, *, run: bool) -> None:
    flags = os.statvfs(directory).f_flag if run and hasattr(os, "statvfs") else 0
    if flags & getattr(os, "ST_NOEXEC", 0):
        raise PermissionError(0, "is on a disk mounted noexec", str(directory))


def _unpack(executable: Path, index: Index, directory: Path, *, run: bool) -> Path:
    """Write all files beside `directory`, then rename. Raises OSError, ModelFileError."""
    directory.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    _refuse_noexec(directory.parent, run=run)
    # Not `tempfile`: it imports a dozen modules, some of which are in the blob.
    partial = directory.parent / f".partial-{os.getpid()}-{os.urandom(4).hex()}"
    partial.mkdir(mode=0o700)
    try:
        with executable.open("rb") as source:
            for path, entry in index.files.items():
                target = partial / path
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(source, entry, target)
        try:
            partial.rename(directory)
        except OSError:
            # Another start was first; what it made is as good.
            if not _intact(directory, index, run=run):
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return directory


def _copy(source: BinaryIO, entry: Entry, target: Path) -> None:
    source.seek(entry.offset)
    left, crc = entry.size, 0
    with target.open("xb") as out:
        while left and (chunk := source.read(min(left, _CHUNK))):
            crc = zlib.crc32(chunk, crc)
            out.write(chunk)
            left -= len(chunk)
    if left or crc != entry.crc32:
        raise ModelFileError(
            f"this executable is damaged ({target.name} in it is not what was packed). "
            "Download it again."
        )


def _sweep(parent: Path) -> None:
    """What a killed start left half-written an hour ago or more."""
    with suppress(OSError):
        for left in parent.glob(".partial-*"):
            if _age(left) > 3600:
                shutil.rmtree(left, ignore_errors=True)


def _age(path: Path) -> float:
    import time

    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
