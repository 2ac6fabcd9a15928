"""The floor is read from real libraries, and from Mach-O files that are made here."""

from __future__ import annotations

import shutil
import struct
import sys
from pathlib import Path

import msgspec
import pytest

import platform_floor
import targets

LINUX = targets.load().find("linux-x64")
MAC = targets.load().find("macos-arm64")
INTEL, ARM = 0x01000007, 0x0100000C
reads_elf = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("objdump") is None, reason="reads ELF with objdump"
)


def macho(cpu: int, major: int, minor: int, *, command: int = 0x32) -> bytes:
    """A library of nothing but one load command: LC_BUILD_VERSION, or the older one (0x24)."""
    packed = major << 16 | minor << 8
    body = (1, packed, packed, 0) if command == 0x32 else (packed, packed)
    load = struct.pack(f"<II{len(body)}I", command, 8 + 4 * len(body), *body)
    return struct.pack("<IIIIIIII", 0xFEEDFACF, cpu, 0, 6, 1, len(load), 0, 0) + load


def universal(*parts: tuple[int, bytes]) -> bytes:
    """<mach-o/fat.h>: a table of (type, offset, size), big-endian, then the parts."""
    offset = 4096
    table, rest = struct.pack(">II", 0xCAFEBABE, len(parts)), b""
    for cpu, part in parts:
        table += struct.pack(">IIIII", cpu, 0, offset + len(rest), len(part), 12)
        rest += part.ljust(4096, b"\0")
    return table.ljust(offset, b"\0") + rest


@reads_elf
def test_the_floor_of_a_wheels_library(capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = Path(str(msgspec.__file__)).parent.glob("_core*.so")
    found = platform_floor.floor(path, LINUX)
    assert found.path == path
    assert (2, 2) <= found.version <= (2, 40)
    assert found.reasons
    command = ["--target", "linux-x64", "--at-most"]
    assert platform_floor.main([str(path), *command, "2.1"]) == 1
    assert platform_floor.main([str(path.parent), *command, "9.9"]) == 0
    assert "linux-x64: glibc 2." in capsys.readouterr().out


@pytest.mark.parametrize("target", [LINUX, MAC], ids=["elf", "mach-o"])
def test_a_directory_without_libraries_is_an_error(tmp_path: Path, target: targets.Target) -> None:
    (tmp_path / "text.so").write_text("not a library", encoding="utf-8")
    with pytest.raises(ValueError, match="holds no library"):
        platform_floor.floor(tmp_path, target)


def test_the_newest_macos_of_all_files(tmp_path: Path) -> None:
    (tmp_path / "old.dylib").write_bytes(macho(ARM, 11, 0, command=0x24))
    (tmp_path / "new.dylib").write_bytes(macho(ARM, 14, 2))
    found = platform_floor.floor(tmp_path, MAC)
    assert (found.version, found.path.name, found.reasons) == ((14, 2), "new.dylib", ("minos",))


def test_of_a_universal_file_only_the_targets_part(tmp_path: Path) -> None:
    both = universal((INTEL, macho(INTEL, 13, 4)), (ARM, macho(ARM, 11, 0)))
    (tmp_path / "both.so").write_bytes(both)
    assert platform_floor.floor(tmp_path, MAC).version == (11, 0)
    intel = targets.load().find("macos-x64")
    assert platform_floor.floor(tmp_path, intel).version == (13, 4)


def test_a_file_that_states_no_macos_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "silent.dylib").write_bytes(macho(ARM, 0, 0, command=0x2A))
    with pytest.raises(ValueError, match="states no oldest macOS"):
        platform_floor.floor(tmp_path, MAC)


@pytest.mark.parametrize(("minor", "held"), [(0, True), (1, False)])
def test_a_bundle_is_held_to_the_table(tmp_path: Path, minor: int, held: bool) -> None:
    exe = tmp_path / "cortex-embed"
    exe.write_bytes(macho(ARM, 11, 0))
    (tmp_path / "onedir" / "_internal").mkdir(parents=True)
    (tmp_path / "onedir" / "_internal" / "l.dylib").write_bytes(macho(ARM, 14, minor))
    text, holds = platform_floor.check(exe, MAC)
    assert holds is held
    assert text.startswith(f"macOS 14.{minor} (l.dylib: minos), ")
    inside = tmp_path / "onedir" / "cortex-embed-onedir"
    inside.write_bytes(macho(ARM, 11, 0))
    assert platform_floor.check(inside, MAC) == (text, held)


def test_libraries_that_cannot_be_seen_are_an_error(tmp_path: Path) -> None:
    exe = tmp_path / "cortex-embed"
    exe.write_bytes(macho(ARM, 11, 0))
    with pytest.raises(ValueError, match="carries its libraries inside"):
        platform_floor.check(exe, MAC)


def test_windows_states_nothing(tmp_path: Path) -> None:
    text, held = platform_floor.check(tmp_path / "x.exe", targets.load().find("windows-x64"))
    assert held
    assert "Windows 10 by the table" in text
