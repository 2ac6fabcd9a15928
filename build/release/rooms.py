"""Freeze in an old Linux, run in a clean one: what GitHub's containers do, where there are none.

    python -m release.rooms [--target linux-x64] [--work dist/rooms] [--fresh]

Three kinds of rooms (chroots) of the oldest Debian that its mirrors have: one that freezes, with a
CPython that asks for no newer glibc than the table promises; one with nothing but a minimal
Debian; one with a C library, zlib and a shell. Linux ARM64's run under qemu. It must never publish:
a release's assets are made in the table's containers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import compile_kernels
import platform_floor
import source_date
import targets
from cortex_embed.errors import OutputError
from cortex_embed.models.artifact import load_artifact
from cortex_embed.models.store import EMBEDDED_DIR
from freeze import stage
from release import old_python, wheels
from release.chroot import DEBIAN, Room, RoomError, fresh, make, missing, remove, said
from release.room_checks import BUNDLED, EXACT
from smoke import TEXTS
from staging import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from targets import Target

ROOT = Path(__file__).resolve().parent.parent.parent
# glibc 2.31: the oldest Debian on deb.debian.org.
SUITE = "bullseye"
SOURCE = ("app", "build", "specs", "requirements", "pyproject.toml", "LICENSE", "README.md")
# What CPython's modules and the wheels need of the system, and what PyInstaller calls.
NEEDS = ("binutils", "libssl1.1", "libffi7", "zlib1g", "libbz2-1.0", "liblzma5", "libuuid1",
         "libstdc++6")  # fmt: skip
BARE = ("libc6", "zlib1g", "dash")
_NOBODY = 1000
"""A user that the room knows nothing of: no name, no home."""
_PATIENCE = 1800.0
"""Seconds for all checks of one room; under qemu they take minutes."""
_SRC, _SITE, _OUT = "/opt/cortex-embed", "/opt/wheels", "/opt/out"


def build_room(work: Path, target: Target, python: str) -> Room:
    """The room that freezes for `target`, with its Python in it. Raises RoomError."""
    dev = [f"{name}-dev" for name in old_python.LIBRARIES]
    packages = sorted({*old_python.TOOLS, *dev, *NEEDS})
    x64 = make(work / "build-linux-x64", "x64", SUITE, packages)
    old_python.build(x64, python, work / "python-linux-x64.log")
    room = x64
    if target.arch != "x64":
        room = make(work / f"build-{target.name}", target.arch, SUITE, NEEDS)
        place = room.root / old_python.PREFIX.lstrip("/")
        log = work / f"python-{target.name}.log"
        old_python.cross_build(x64, target.arch, python, log, place)
    room.run(f"{old_python.PREFIX}/bin/python{python}", "-c", old_python.IMPORTS)
    return room


def freeze(room: Room, target: Target, python: str, out: Path) -> None:
    """Both executables, the directory form and the assets of this source tree, into `out`.

    The wheels are put there from outside, with the lock's hashes: the room has no network. So are
    the kernels, cross-compiled: the room has no compiler that it may use.
    Raises RoomError, KernelsError, OutputError, CalledProcessError.
    """
    if not compile_kernels.is_current(target):
        compile_kernels.compile_for(target)
    inside = {name: room.root / name.lstrip("/") for name in (_SRC, _SITE, _OUT)}
    for place in inside.values():
        shutil.rmtree(place, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, inside[_SRC] / name, ignore=ignored)
        else:
            shutil.copy2(ROOT / name, inside[_SRC])
    # Copies: a room must not reach into this machine's cache by a link.
    command = [*wheels.install(python, inside[_SITE]), "--link-mode", "copy"]
    wheels.installer(target, *command, "-r", str(wheels.RELEASE))
    log = fresh(out.with_name(f"freeze-{target.name}.log"))
    variables = {
        "PYTHONPATH": f"{_SRC}/app:{_SRC}/build:{_SITE}",
        # The room has no git to ask.
        source_date.VARIABLE: str(source_date.epoch()),
    }
    inside_python = f"{old_python.PREFIX}/bin/python{python}"
    for form, flags in (("full", ()), ("slim", ("--slim",))):
        command = [inside_python, "build/freeze.py", *flags, "--out", f"{_OUT}/{form}"]
        room.run(*command, cwd=_SRC, env=variables, log=log)
    # Here, not outside: licence texts and versions are those of the room's libraries.
    command = [inside_python, "-m", "release.package", "--from", _OUT, "--out", f"{_OUT}/release"]
    room.run(*command, cwd=_SRC, env=variables, log=log)
    shutil.rmtree(out, ignore_errors=True)
    # Not the models: `expect` has the full one's from the room.
    left = shutil.ignore_patterns(".work")
    shutil.copytree(inside[_OUT] / "full", out, symlinks=True, ignore=left)
    shutil.copytree(inside[_OUT] / "slim", out / "slim", symlinks=True, ignore=left)
    shutil.copytree(inside[_OUT] / "release", out / "release")


def bare_room(clean: Room, root: Path) -> Room:
    """A C library, zlib and /bin/sh, copied from a minimal Debian: the least that is promised."""
    remove(root)
    root.mkdir(parents=True)
    for name in ("bin", "lib", "lib64", "sbin"):  # since bullseye, links into /usr
        if (clean.root / name).is_symlink():
            (root / name).symlink_to((clean.root / name).readlink())
    for package in BARE:
        for path in contents(clean, package):
            copy_of = root / path.lstrip("/")
            copy_of.parent.resolve().mkdir(parents=True, exist_ok=True)
            shutil.copy2(clean.root / path.lstrip("/"), copy_of, follow_symlinks=False)
    for name, mode in (("proc", 0o555), ("tmp", 0o1777), ("dev", 0o755)):
        (root / name).mkdir()
        (root / name).chmod(mode)
    for device in ("null", "urandom"):
        original = (clean.root / "dev" / device).stat()
        os.mknod(root / "dev" / device, original.st_mode, original.st_rdev)
        (root / "dev" / device).chmod(0o666)
    return Room(root, clean.arch)


def contents(room: Room, package: str) -> list[str]:
    """Files and links of an installed package that a program may need, by dpkg's own list."""
    lists = room.root / "var" / "lib" / "dpkg" / "info"
    names = (f"{package}:{DEBIAN[room.arch]}.list", f"{package}.list")
    text = next((lists / name).read_text("utf-8") for name in names if (lists / name).is_file())
    found = {path: room.root / path.lstrip("/") for path in text.splitlines()}
    return [
        path
        for path, here in found.items()
        # A link to a file may lead nowhere when seen from outside; one to a directory is /lib.
        if (here.is_file() or (here.is_symlink() and not here.is_dir()))
        and not path.startswith("/usr/share/")
    ]


def expect(room: Room, out: Path) -> Path:
    """What this source, on this machine, makes of the same texts, and by which models.

    The bundle's own model, as `freeze` left it in the room, and the same one in fp32, whose
    vectors are the same on every architecture. Raises RoomError.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    stage(load_artifact(EMBEDDED_DIR), out / EXACT, "fp32")
    models = {EXACT: out / EXACT, BUNDLED: room.root / _OUT.lstrip("/") / "full/.work/model"}
    for name, model in models.items():
        command = [sys.executable, "-m", "cortex_embed", "embed", *TEXTS, "--model", str(model)]
        text = said(command, env=os.environ | {"PYTHONPATH": str(ROOT / "app")})
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return out


def tried(room: Room, exe: Path, expected: Path, user: int) -> bool:
    """All checks of one room, in a network without a way out, and processes of their own."""
    checks = [sys.executable, "-m", "release.room_checks", "--root", str(room.root)]
    checks += ["--arch", room.arch, "--exe", str(exe), "--expected", str(expected)]
    command = [
        "unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
        # The shell stays, as process 1: it reaps what the checks' processes leave behind.
        "sh", "-c", 'ip link set lo up && "$@"; exit $?', "sh", *checks, "--user", str(user),
    ]  # fmt: skip
    path = os.pathsep.join(map(str, (ROOT / "build", ROOT / "app")))
    try:
        done = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": path}, timeout=_PATIENCE, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        print(f"  FAIL  not done after {_PATIENCE:.0f} s")
        return False
    return done.returncode == 0


def release_room(target: Target, python: str, work: Path) -> bool:
    """Make, freeze, and try one target's; True where all checks pass. Raises RoomError."""
    clock = time.monotonic()
    room = build_room(work, target, python)
    print(
        f"{target.name}: a room with Python {python}, {time.monotonic() - clock:.0f} s", flush=True
    )
    clock = time.monotonic()
    built = work / target.name
    freeze(room, target, python, built)
    print(f"{target.name}: frozen, {time.monotonic() - clock:.0f} s: {built}", flush=True)
    text, held = platform_floor.check(built / "cortex-embed", target)
    print(f"  {'ok  ' if held else 'FAIL'}  floor: {text}", flush=True)
    expected = expect(room, work / f"expected-{target.name}")
    clean = make(work / f"clean-{target.name}", target.arch, SUITE)
    bare = bare_room(clean, work / f"bare-{target.name}")
    full, onedir = built / "cortex-embed", built / "onedir" / "cortex-embed-onedir"
    debian, least = f"a minimal Debian {SUITE}", f"{', '.join(BARE)} and nothing else"
    for exe, place, user, words in (
        (full, clean, 0, f"{debian}, as root"),
        (full, clean, _NOBODY, f"{debian}, as user {_NOBODY}"),
        (full, bare, _NOBODY, f"{least}, as user {_NOBODY}"),
        (onedir, bare, _NOBODY, f"{least}, as user {_NOBODY}"),
    ):
        print(f"{target.name}, {exe.name} in {words}:", flush=True)
        held = tried(place, exe, expected, user) and held
    return held


def main(arguments: Sequence[str] | None = None) -> int:
    table = targets.load()
    linux = [target.name for target in table.targets if target.os == "linux"]
    parser = argparse.ArgumentParser(description="Freeze in an old Linux, run in a clean one.")
    parser.add_argument("--target", choices=linux, action="append", help="default: all")
    parser.add_argument("--work", type=Path, default=ROOT / "dist" / "rooms", metavar="DIR")
    parser.add_argument("--fresh", action="store_true", help="make the rooms anew")
    args = parser.parse_args(arguments)
    names = args.target or linux
    chosen = [table.find(name) for name in names]
    if lacks := [line for target in chosen for line in missing(target.arch)]:
        print("\n".join(dict.fromkeys(lacks)), file=sys.stderr)
        return 2
    exit_on_sigterm()
    work = args.work.resolve()
    held = True
    try:
        if args.fresh and work.is_dir():
            remove(work)
        for target in chosen:
            held = release_room(target, table.release.python, work) and held
    except (RoomError, compile_kernels.KernelsError, OutputError) as why:
        print(why, file=sys.stderr)
        return 1
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
