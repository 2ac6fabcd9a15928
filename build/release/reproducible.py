"""Freeze and package twice, from two places, and say what differs: byte by byte, entry by entry.

    python -m release.reproducible [--keep DIR]

Two copies of the tree, of different paths, at different times, under another umask, home and
locale; one interpreter, since another one is another input. It must never compare a copy with
itself, nor call equal what it did not read.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import compile_kernels
import source_date
from cortex_embed.models.artifact import hash_file
from release import archive

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
# What freezing reads of a tree, the model and the vocabulary that `embed_default_model` made too;
# not the kernels, which are compiled in each copy.
_INPUTS = ("app", "build", "specs", "requirements", "LICENSE", "README.md", "CHANGELOG.md")
_UMASKS = (0o022, 0o077)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Build twice and compare.")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave both builds there")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="reproducible-") as scratch:
        base = args.keep or Path(scratch)
        outs = [build(base, number) for number in range(2)]
        differing = list(differences(*outs))
        for line in differing:
            print(f"- {line}")
        if differing:
            print(f"The two builds differ in {len(differing)} ways.", file=sys.stderr)
            return 1
        made = files(outs[0])
        for name, path in made.items():
            if "onedir/" not in name:
                print(f"{hash_file(path)}  {name}")
    print(f"Two builds from two places are the same, byte by byte: {len(made)} files.")
    return 0


def build(base: Path, number: int) -> Path:
    """`dist` of one more build: as a rehearsal, since only bytes matter. Raises
    CalledProcessError."""
    place = base / ("one" if number == 0 else "another place, deeper/two")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in _INPUTS:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "cortex-kernels-*")
            shutil.copytree(ROOT / name, place / name, ignore=ignored)
        else:
            shutil.copyfile(ROOT / name, place / name)  # not its date
    home = place / "home"
    home.mkdir()
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(place / "app"), str(place / "build")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(home),
        "TZ": ("UTC", "Asia/Tokyo")[number],
        source_date.VARIABLE: str(source_date.epoch()),
        # Freezing sets its own for PyInstaller; everything before it must not depend on one.
        "PYTHONHASHSEED": str(number),
    }
    print(f"Building in {place}", flush=True)
    for step in (["build/compile_kernels.py"], ["-m", "release.package"]):
        subprocess.run(
            [sys.executable, *step], cwd=place, env=environment, check=True,
            umask=_UMASKS[number], stdout=subprocess.DEVNULL,
        )  # fmt: skip
    return place / "dist"


def files(dist: Path) -> dict[str, Path]:
    """What a build made, without the notes that freezing keeps and what compilers do."""
    kept = {".work", compile_kernels.CACHE.name}
    return {
        name: path for name, path in archive.tree(dist).items() if kept.isdisjoint(name.split("/"))
    }


def differences(one: Path, two: Path) -> Iterator[str]:
    """A sentence each. Raises ValueError where there is nothing to compare."""
    first, second = files(one), files(two)
    if not first or one.resolve() == two.resolve():
        raise ValueError(f"{one} and {two} are no two builds.")
    for name in sorted(first.keys() ^ second.keys()):
        yield f"{name} is only in {one if name in first else two}."
    for name in sorted(first.keys() & second.keys()):
        a, b = first[name], second[name]
        if a.is_symlink() or b.is_symlink():
            if not (a.is_symlink() and b.is_symlink()) or a.readlink() != b.readlink():
                yield f"{name} is another link."
        elif (a.stat().st_mode & 0o100) != (b.stat().st_mode & 0o100):
            yield f"{name} may be executed in one of both only."
        elif hash_file(a) != hash_file(b):
            yield f"{name}: {within(a, b)}"


def within(a: Path, b: Path) -> str:
    """Where two files differ: the parts of an archive or executable, else the first byte."""
    first, second = parts(a), parts(b)
    differing = sorted(n for n in first.keys() | second.keys() if first.get(n) != second.get(n))
    if differing:
        more = f" and {len(differing) - 8} more" if len(differing) > 8 else ""
        return f"differs in {', '.join(differing[:8])}{more}; {at(a, b)}"
    return f"differs outside of its {len(first)} entries; {at(a, b)}"


def parts(path: Path) -> dict[str, str]:
    """SHA-256 of what is inside, by name: of a release archive, or PyInstaller's in an executable.

    Empty for other files.
    """
    if archive.stem(path.name) != path.name:
        with archive.reading(path) as reader:
            names = [m for m in reader.members() if not m.is_directory and m.link is None]
            return {m.name: _of(reader, m.name) + f" {m.mode:o}" for m in names}
    from PyInstaller.archive.readers import ArchiveReadError, CArchiveReader

    try:
        content = CArchiveReader(str(path))
    except (ArchiveReadError, OSError):
        return {}
    found = {name: sha256(content.extract(name)).hexdigest() for name in content.toc}
    for name, entry in content.toc.items():
        if entry[-1] == "z":
            modules = content.open_embedded_archive(name)
            for module in modules.toc:
                raw = modules.extract(module, raw=True)
                found[f"{name}/{module}"] = sha256(raw or b"").hexdigest()
    return found


def _of(reader: archive.Reader, name: str) -> str:
    with reader.open(name) as file:
        return sha256(file.read()).hexdigest()


def at(a: Path, b: Path) -> str:
    """The first byte that differs, in words."""
    chunk = 2**20
    with a.open("rb") as one, b.open("rb") as two:
        offset = 0
        while True:
            x, y = one.read(chunk), two.read(chunk)
            if x != y:
                same = next((n for n in range(min(len(x), len(y))) if x[n] != y[n]), None)
                first = offset + (min(len(x), len(y)) if same is None else same)
                return f"first at byte {first} of {a.stat().st_size} and {b.stat().st_size}"
            if not x:
                return "not a byte"
            offset += len(x)


if __name__ == "__main__":
    sys.exit(main())
