"""Which oldest system a bundle needs: the highest demand of any library in it.

    python build/platform_floor.py dist/onedir [--target linux-x64] [--at-most 2.28]

On Linux the newest glibc symbol (objdump, of binutils, which PyInstaller needs anyway), on macOS
the newest `minos` (macholib, which PyInstaller needs there). Windows' files state none. It must
never guess: a library that cannot be read is an error.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from targets import Target

Version = tuple[int, ...]

_ELF = (b"\x7fELF",)
# 64-bit little-endian, and universal with several such inside (the Java class files' number too).
_MACHO = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
# <mach/machine.h>
_CPU_TYPES = {"x64": 0x01000007, "arm64": 0x0100000C}


@dataclass(frozen=True, slots=True, order=True)
class Floor:
    """A demand, the file that makes it, and by what: symbols, or the load command."""

    version: Version
    path: Path
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"{dotted(self.version)} ({self.path.name}: {', '.join(self.reasons[:3])})"


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def version_of(text: str) -> Version:
    """`2.28` as numbers. Raises ValueError."""
    return tuple(int(part) for part in text.split("."))


def files(root: Path, magic: tuple[bytes, ...]) -> Iterator[Path]:
    """`root` itself, or every file below it, that begins with one of `magic`."""
    for path in [root] if root.is_file() else sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) in magic:
                    yield path


def glibc_of(path: Path) -> Iterator[Floor]:
    """What the dynamic symbols of one ELF file ask for. Raises CalledProcessError."""
    done = subprocess.run(["objdump", "-T", str(path)], check=True, capture_output=True, text=True)
    found: dict[Version, set[str]] = {}
    for line in done.stdout.splitlines():
        if "*UND*" in line and (match := re.search(r"GLIBC_(\d+(?:\.\d+)+)\)?\s+(\S+)", line)):
            found.setdefault(version_of(match[1]), set()).add(match[2])
    for version, symbols in found.items():
        yield Floor(version, path, tuple(sorted(symbols)))


def macos_of(path: Path, arch: str) -> Iterator[Floor]:
    """What `arch`'s part of one Mach-O file asks for; nothing where it has no such part.

    LC_BUILD_VERSION, or LC_VERSION_MIN_MACOSX of older linkers (<mach-o/loader.h>): both hold
    the version as xxxx.yy.zz in 32 bits. Raises ValueError for a part that states neither.
    """
    from macholib import mach_o
    from macholib.MachO import MachO

    fields = {mach_o.LC_BUILD_VERSION: "minos", mach_o.LC_VERSION_MIN_MACOSX: "version"}
    for part in MachO(str(path)).headers:
        if part.header.cputype != _CPU_TYPES[arch]:
            continue
        stated = [
            (fields[load.cmd], int(getattr(command, fields[load.cmd])))
            for load, command, _ in part.commands
            if load.cmd in fields
        ]
        if not stated:
            raise ValueError(f"{path} states no oldest macOS.")
        for name, packed in stated:
            yield Floor((packed >> 16, packed >> 8 & 0xFF), path, (name,))


def floor(root: Path, target: Target) -> Floor:
    """The highest demand below `root`, or of the file `root`.

    Raises ValueError when no library is there, or one states nothing, as on Windows.
    """
    if target.os == "linux":
        rows = [row for path in files(root, _ELF) for row in glibc_of(path)]
    elif target.os == "macos":
        rows = [row for path in files(root, _MACHO) for row in macos_of(path, target.arch)]
    else:
        raise ValueError("Windows' libraries do not state the oldest Windows that they need.")
    if not rows:
        raise ValueError(f"{root} holds no library of {target.name} that states what it needs.")
    return max(rows)


def check(exe: Path, target: Target) -> tuple[str, bool]:
    """The floor of an executable and its libraries, in words, and whether the table holds.

    Raises ValueError where the libraries cannot be seen.
    """
    if target.os == "windows":
        return f"{target.minimum} by the table; Windows' files state none", True
    system = target.minimum.split()[0]
    highest = max(floor(path, target) for path in (exe, tree_of(exe)))
    if highest.version <= target.minimum_version:
        return f"{system} {highest}, within the table's {target.minimum}", True
    return f"{system} {highest}, but the table promises {target.minimum}", False


def tree_of(exe: Path) -> Path:
    """Where its libraries lie open: the directory form holds the same ones as the one file.

    Raises ValueError where there is none.
    """
    if (exe.parent / "_internal").is_dir():
        return exe.parent
    if (exe.parent / "onedir" / "_internal").is_dir():
        return exe.parent / "onedir"
    raise ValueError(
        f"{exe} carries its libraries inside, where they cannot be read. "
        f"Freeze it, which makes {exe.parent / 'onedir'} with the same ones."
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print which oldest system a bundle needs.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--target", metavar="NAME", help="whose bundle it is; else this machine's")
    parser.add_argument("--at-most", metavar="VERSION", help="exit 1 above this, such as 2.28")
    args = parser.parse_args(arguments)
    table = targets.load()
    target = table.find(args.target) if args.target else targets.here(table)
    found = floor(args.root, target)
    print(f"{target.name}: {target.minimum.split()[0]} {found}")
    return 0 if not args.at_most or found.version <= version_of(args.at_most) else 1


if __name__ == "__main__":
    sys.exit(main())
