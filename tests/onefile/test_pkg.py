"""PyInstaller's own archives are found and read, wherever the cookie is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PyInstaller.archive.readers import CArchiveReader

from cortex_embed.errors import ModelFileError
from cortex_embed.onefile import pkg
from tests.onefile.conftest import HEAD, TAIL, Make


def test_blobs_are_found_and_nothing_else(executable: Make) -> None:
    path = executable(blobs={"runtime.blob": {"a": b"1"}, "model.blob": {"b": b"2" * 99}})
    with path.open("rb") as file:
        archive = pkg.read(file)
    assert set(archive.blobs) == {"runtime.blob", "model.blob"}
    assert archive.start == len(HEAD)
    assert archive.end == path.stat().st_size - len(TAIL)
    for offset, size in archive.blobs.values():
        assert path.read_bytes()[offset : offset + size].startswith(b"CXBLOB1\n")


def test_a_cookie_before_a_large_signature_is_found(executable: Make) -> None:
    path = executable(blobs={"runtime.blob": {"a": b"1"}})
    with path.open("ab") as file:
        file.write(b"signature" * 20_000)
    with path.open("rb") as file:
        assert set(pkg.read(file).blobs) == {"runtime.blob"}


@pytest.mark.parametrize("keep", [0, 10, 500, -len(TAIL) - 40])
def test_a_truncated_executable_is_an_error(executable: Make, keep: int) -> None:
    path = executable(blobs={"runtime.blob": {"a": b"1"}})
    path.write_bytes(path.read_bytes()[:keep])
    with path.open("rb") as file, pytest.raises(ModelFileError, match="damaged"):
        pkg.read(file)


def test_a_row_of_ours_is_one_that_pyinstaller_reads(executable: Make, tmp_path: Path) -> None:
    path = executable()
    with path.open("rb") as file:
        archive = pkg.read(file)
    begin = archive.toc - archive.start
    blob = b"a blob"
    toc = archive.raw_toc + pkg.toc_entry("model.blob", begin, len(blob))
    cookie = pkg.cookie_of(archive, begin + len(blob), len(toc))
    made = tmp_path / "made"
    made.write_bytes(path.read_bytes()[: archive.toc] + blob + toc + cookie)
    read = CArchiveReader(str(made))
    assert set(read.toc) == {"plain.txt", "model.blob"}
    assert read.extract("model.blob") == blob
    assert read.extract("plain.txt") == b"extracted by the bootloader"
