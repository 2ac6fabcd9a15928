"""A blob: several files as one stored entry of the executable, with an index in front.

    8 bytes   MAGIC
    8 bytes   length of the index, little-endian
    index     JSON: {"files": {path: [offset, size, crc32]}, "modules": {name: path},
              "needs": {name: [path]}}
    data      the files, one after another; offsets count from the start of the data

Paths are relative and written with slashes. The checksum finds damage (a truncated
download), not malice: whoever can write the executable needs no blob. It must never
compress: what is stored can be copied, or mapped, without work at a start.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import BinaryIO

MAGIC = b"CXBLOB1\n"
_HEAD = 16
_CHUNK = 2**20


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a file's bytes are in the executable: `offset` counts from the start of that."""

    offset: int
    size: int
    crc32: int


@dataclass(frozen=True, slots=True)
class Index:
    """What a blob holds. `modules` names the files that are extension modules, `needs` the
    libraries that must be loaded before one, in their order."""

    files: dict[str, Entry] = field(hash=False)
    modules: dict[str, str] = field(hash=False)
    needs: dict[str, list[str]] = field(hash=False)
    key: str
    """Names this content: a checksum of index and length, the same for the same files."""


def write(
    out: BinaryIO,
    files: Mapping[str, Path],
    modules: Mapping[str, str],
    needs: Mapping[str, list[str]] | None = None,
) -> None:
    """Write a blob of `files` (path in the blob to a file on this disk). Raises OSError."""
    table: dict[str, tuple[int, int, int]] = {}
    offset = 0
    for path, source in sorted(files.items()):
        size, crc = _measure(source)
        table[path] = (offset, size, crc)
        offset += size
    facts = {"files": table, "modules": dict(sorted(modules.items())), "needs": dict(needs or {})}
    index = json.dumps(facts, separators=(",", ":")).encode()
    out.write(MAGIC + len(index).to_bytes(8, "little") + index)
    for path in table:
        with files[path].open("rb") as file:
            while chunk := file.read(_CHUNK):
                out.write(chunk)


def _measure(source: Path) -> tuple[int, int]:
    """Size and CRC-32 of a file."""
    size = crc = 0
    with source.open("rb") as file:
        while chunk := file.read(_CHUNK):
            size += len(chunk)
            crc = zlib.crc32(chunk, crc)
    return size, crc


def read_index(file: BinaryIO, start: int, size: int) -> Index:
    """The index of the blob at `start` of an executable. Raises ModelFileError if it is none."""
    file.seek(start)
    head = file.read(_HEAD)
    length = int.from_bytes(head[8:], "little")
    if head[:8] != MAGIC or not 0 < length <= size - _HEAD:
        raise ModelFileError(_damaged("it holds no blob where it should"))
    raw = file.read(length)
    try:
        table = json.loads(raw)
    except ValueError:
        raise ModelFileError(_damaged("the index of a blob is not readable")) from None
    data = start + _HEAD + length
    entries = {path: Entry(data + at, n, crc) for path, (at, n, crc) in table["files"].items()}
    if any(entry.offset + entry.size > start + size for entry in entries.values()):
        raise ModelFileError(_damaged("a blob is cut short"))
    return Index(entries, table["modules"], table["needs"], f"{zlib.crc32(raw):08x}{size:010x}")


def read(file: BinaryIO, entry: Entry) -> bytes:
    """One small file of a blob, into memory. Raises ModelFileError if it is not what was packed."""
    file.seek(entry.offset)
    data = file.read(entry.size)
    if zlib.crc32(data) != entry.crc32:
        raise ModelFileError(_damaged("a file in it is not what was packed"))
    return data


def _damaged(what: str) -> str:
    return f"this executable is damaged: {what}. Download it again."
