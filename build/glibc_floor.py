"""Which glibc an executable needs: the newest symbol version over all the libraries in it.

    python build/glibc_floor.py dist/onedir [--at-most 2.28]

Reads ELF files with objdump (binutils, which PyInstaller needs anyway). It must never guess:
a library that cannot be read is an error.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Version = tuple[int, ...]


def elf_files(root: Path) -> Iterator[Path]:
    """`root` itself, or every ELF file below it."""
    for path in [root] if root.is_file() else sorted(root.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def needs(path: Path) -> dict[Version, list[str]]:
    """glibc versions that the dynamic symbols of one file ask for, with the symbols' names.

    Raises CalledProcessError.
    """
    done = subprocess.run(["objdump", "-T", str(path)], check=True, capture_output=True, text=True)
    found: dict[Version, list[str]] = {}
    for line in done.stdout.splitlines():
        if "*UND*" in line and (match := re.search(r"GLIBC_(\d+(?:\.\d+)+)\)?\s+(\S+)", line)):
            version = tuple(int(part) for part in match[1].split("."))
            found.setdefault(version, []).append(match[2])
    return found


def floor(root: Path) -> tuple[Version, Path, list[str]]:
    """The newest version, one file that needs it, and the symbols. Raises ValueError if none."""
    rows = [(v, p, s) for p in elf_files(root) for v, s in needs(p).items()]
    return max(rows, key=lambda row: row[0])


def described(exe: Path) -> str:
    """The floor of an executable, for people."""
    version, path, symbols = floor(tree_of(exe))
    return f"glibc {'.'.join(map(str, version))} ({path.name}: {', '.join(sorted(symbols)[:3])})"


def tree_of(exe: Path) -> Path:
    """What to look at: the directory form holds the same libraries as the one file."""
    if exe.parent.name == "onedir" or (exe.parent / "_internal").is_dir():
        return exe.parent
    onedir = Path(__file__).resolve().parent.parent / "dist" / "onedir"
    return onedir if onedir.is_dir() else exe


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the glibc floor of a bundle.")
    parser.add_argument("root", type=Path)
    parser.add_argument("--at-most", metavar="VERSION", help="exit 1 above this, such as 2.28")
    args = parser.parse_args(arguments)
    version, path, symbols = floor(args.root)
    print(f"GLIBC_{'.'.join(map(str, version))} {path} {' '.join(sorted(symbols))}")
    allowed = tuple(int(part) for part in (args.at_most or "999").split("."))
    return 0 if version <= allowed else 1


if __name__ == "__main__":
    sys.exit(main())
