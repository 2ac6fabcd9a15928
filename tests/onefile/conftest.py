"""Executables for tests: a real PyInstaller archive behind an ELF head, without a program in it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PyInstaller.archive.writers import CArchiveWriter

from cortex_embed.onefile import blob

Make = Callable[..., Path]
HEAD = b"\x7fELF" + bytes(range(60)) + b"bootloader" * 50
TAIL = b"section table" * 20


@pytest.fixture
def executable(tmp_path: Path) -> Make:
    """`executable(name, blobs={entry: {path: bytes}})` writes one and gives its path."""

    def make(
        name: str = "exe",
        blobs: Mapping[str, Mapping[str, bytes]] | None = None,
        modules: Mapping[str, str] | None = None,
    ) -> Path:
        plain = tmp_path / "plain.txt"
        plain.write_bytes(b"extracted by the bootloader")
        entries = [("plain.txt", str(plain), False, "x")]
        for entry, files in (blobs or {}).items():
            stored = tmp_path / f"{name}-{entry}"
            stored.write_bytes(blob_of(tmp_path / f"{name}-files", files, modules or {}))
            entries.append((entry, str(stored), False, "B"))
        archive = tmp_path / f"{name}.pkg"
        CArchiveWriter(str(archive), entries, pylib_name="libpython3.so")
        path = tmp_path / name
        path.write_bytes(HEAD + archive.read_bytes() + TAIL)
        return path

    return make


def blob_of(scratch: Path, files: Mapping[str, bytes], modules: Mapping[str, str]) -> bytes:
    sources = {}
    for number, (path, content) in enumerate(files.items()):
        source = scratch / str(number)
        source.parent.mkdir(exist_ok=True)
        source.write_bytes(content)
        sources[path] = source
    out = io.BytesIO()
    blob.write(out, sources, modules)
    return out.getvalue()
