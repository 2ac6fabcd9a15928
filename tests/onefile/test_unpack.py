"""Unpacked once, whole or not at all, whatever the place is like."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cortex_embed.errors import ModelFileError, UnpackError
from cortex_embed.onefile import blob, pkg, unpack
from cortex_embed.onefile.blob import Index
from tests.onefile.conftest import Make

FILES = {"lib/a.so": b"\x7fELF" * 5000, "b.bin": b"weights" * 3000, "empty": b""}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache, and a bootloader's directory beside it."""
    place = tmp_path / "cache" / "runtime"
    monkeypatch.setenv("CORTEX_EMBED_UNPACK_DIR", str(place))
    (tmp_path / "_MEI").mkdir()
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path / "_MEI"), raising=False)
    return place


@pytest.fixture
def packed(executable: Make) -> tuple[Path, Index]:
    path = executable(blobs={"runtime.blob": FILES})
    with path.open("rb") as file:
        return path, blob.read_index(file, *pkg.read(file).blobs["runtime.blob"])


def assert_whole(directory: Path) -> None:
    assert {p: (directory / p).read_bytes() for p in FILES} == FILES


def test_the_second_start_writes_nothing(place: Path, packed: tuple[Path, Index]) -> None:
    path, index = packed
    first = unpack.unpacked(path, index, run=True)
    assert_whole(first)
    assert first.parent == place
    before = {p: p.stat().st_mtime_ns for p in place.rglob("*")}
    path.unlink()  # not even read
    assert unpack.unpacked(path, index, run=True) == first
    assert {p: p.stat().st_mtime_ns for p in place.rglob("*")} == before


def test_ten_starters_at_once_leave_one_copy(place: Path, packed: tuple[Path, Index]) -> None:
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(unpack.unpacked(*packed, run=True)))
        for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 10
    assert len(set(found)) == 1
    assert [p.name for p in place.iterdir()] == [packed[1].key]
    assert_whole(found[0])


@pytest.mark.parametrize("harm", ["missing", "short"])
def test_what_a_cleaner_took_comes_back(place: Path, packed: tuple[Path, Index], harm: str) -> None:
    directory = unpack.unpacked(*packed, run=True)
    victim = directory / "b.bin"
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_bytes(b"short")
    assert_whole(unpack.unpacked(*packed, run=True))


def test_a_damaged_executable_is_named(place: Path, packed: tuple[Path, Index]) -> None:
    path, index = packed
    raw = bytearray(path.read_bytes())
    raw[index.files["b.bin"].offset + 7] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ModelFileError, match=r"damaged \(b\.bin"):
        unpack.unpacked(path, index, run=True)
    assert list(place.iterdir()) == []


def test_a_place_that_others_can_write_is_not_trusted(
    place: Path, packed: tuple[Path, Index], tmp_path: Path
) -> None:
    directory = unpack.unpacked(*packed, run=True)
    directory.chmod(0o777)
    used = unpack.unpacked(*packed, run=True)
    assert used.parent == tmp_path / "_MEI"
    assert_whole(used)


def test_a_file_in_the_way_is_survived(
    place: Path, packed: tuple[Path, Index], tmp_path: Path
) -> None:
    place.parent.mkdir()
    place.write_text("a file", encoding="utf-8")
    used = unpack.unpacked(*packed, run=True)
    assert used.parent == tmp_path / "_MEI"
    assert_whole(used)


def test_no_place_at_all_says_the_way_out(
    place: Path, packed: tuple[Path, Index], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.parent.mkdir()
    place.write_text("a file", encoding="utf-8")
    (tmp_path / "taken").write_text("", encoding="utf-8")
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path / "taken"))
    with pytest.raises(UnpackError, match="CORTEX_EMBED_UNPACK_DIR"):
        unpack.unpacked(*packed, run=True)


@pytest.mark.skipif(
    sys.platform != "linux" or os.getuid() != 0, reason="mounts a small disk: Linux, as root"
)
@pytest.mark.parametrize("options", ["size=16k", "noexec,size=4m", "ro"])
def test_a_full_noexec_or_read_only_disk_is_survived(
    packed: tuple[Path, Index], options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "_MEI").mkdir()
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path / "_MEI"), raising=False)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    subprocess.run(mount, check=True)
    monkeypatch.setenv("CORTEX_EMBED_UNPACK_DIR", str(disk / "runtime"))
    try:
        used = unpack.unpacked(*packed, run=True)
        assert used.parent == tmp_path / "_MEI"
        assert_whole(used)
        assert not list(disk.rglob(".partial-*"))
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_old_half_is_swept_and_a_young_one_left(place: Path, packed: tuple[Path, Index]) -> None:
    for name, age in (("old", 7200), ("young", 60)):
        half = place / f".partial-{name}"
        half.mkdir(parents=True)
        then = half.stat().st_mtime - age
        os.utime(half, (then, then))
    unpack.unpacked(*packed, run=True)
    assert {p.name for p in place.iterdir()} == {packed[1].key, ".partial-young"}
