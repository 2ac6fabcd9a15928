"""PyInstaller's archive (PKG) inside an executable: find an entry, or add one.

The format is that of PyInstaller 6's `archive/readers.py`: entries, a table of contents, and
a cookie that is the last thing of the archive, with other bytes after it (an ELF section
table, a signature). Entries of an unknown type code are left alone by the bootloader: ours
have `BLOB`. It must never rewrite a file in place.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from cortex_embed.errors import ModelFileError

if TYPE_CHECKING:
    from typing import BinaryIO

BLOB = b"B"
_MAGIC = b"MEI\014\013\012\013\016"
_COOKIE = struct.Struct("!8sIIII64s")
_ENTRY = struct.Struct("!IIIIBc")
# A signature or section table may follow the cookie; both are far smaller.
_TAIL = 2**16


class Archive(NamedTuple):
    """Where the archive lies in its file, and what is in it; offsets from the file's start."""

    start: int
    toc: int
    end: int
    raw_toc: bytes
    cookie: bytes
    blobs: dict[str, tuple[int, int]]
    """Name to offset and size, of entries of type `BLOB`."""


def read(file: BinaryIO) -> Archive:
    """The archive in an executable. Raises ModelFileError when there is none or it is cut."""
    at, raw = _find_cookie(file)
    _, length, toc, toc_length, _, _ = _COOKIE.unpack(raw)
    start = at + _COOKIE.size - length
    if start < 0 or toc + toc_length + _COOKIE.size > length:
        raise ModelFileError("this executable is damaged: its archive is cut short.")
    file.seek(start + toc)
    raw_toc = file.read(toc_length)
    return Archive(start, start + toc, at + _COOKIE.size, raw_toc, raw, _blobs(raw_toc, start))


def _find_cookie(file: BinaryIO) -> tuple[int, bytes]:
    size = file.seek(0, 2)
    # The whole file only where the quick look fails: a signature may be large.
    for window in (min(size, _TAIL), size):
        file.seek(size - window)
        tail = file.read(window)
        found = tail.rfind(_MAGIC)
        if found >= 0 and found + _COOKIE.size <= len(tail):
            return size - window + found, tail[found : found + _COOKIE.size]
    raise ModelFileError("this executable is damaged: it has no archive. Download it again.")


def _blobs(toc: bytes, start: int) -> dict[str, tuple[int, int]]:
    blobs, at = {}, 0
    while at < len(toc):
        length, offset, size, _, _, kind = _ENTRY.unpack_from(toc, at)
        if length < _ENTRY.size:
            raise ModelFileError("this executable is damaged: its table of contents is broken.")
        if kind == BLOB:
            name = toc[at + _ENTRY.size : at + length].rstrip(b"\0").decode("utf-8", "replace")
            blobs[name] = (start + offset, size)
        at += length
    return blobs


def toc_entry(name: str, offset: int, size: int) -> bytes:
    """A row of the table of contents for a blob; `offset` counts from the archive's start."""
    raw = name.encode()
    # The bootloader reads rows that are multiples of 16 bytes, the name ended by a NUL.
    length = -(-(_ENTRY.size + len(raw) + 1) // 16) * 16
    row = _ENTRY.pack(length, offset, size, size, 0, BLOB) + raw
    return row.ljust(length, b"\0")


def cookie_of(archive: Archive, toc_offset: int, toc_length: int) -> bytes:
    """The archive's cookie with another table of contents; offsets from the archive's start."""
    magic, _, _, _, version, library = _COOKIE.unpack(archive.cookie)
    total = toc_offset + toc_length + _COOKIE.size
    return _COOKIE.pack(magic, total, toc_offset, toc_length, version, library)
