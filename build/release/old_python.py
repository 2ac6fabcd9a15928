"""CPython of the table's version for an old glibc, from the source that Debian signs.

The room has a newer glibc than the table promises, so what came after the promise is left alone:
functions by configure's answers, newer versions of old functions by name. It must never be what a
release is made with: there, uv's Python in PyPA's container is (build/targets.toml).
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from release.chroot import GNU, KEYRING, MIRROR, Room, RoomError, fresh

PREFIX = "/opt/python"
LIBRARIES = ("libssl", "libffi", "zlib1g", "libbz2", "liblzma", "uuid")
"""Of which CPython's modules need the -dev packages; by Debian's names without the suffix."""
TOOLS = ("gcc", "libc6-dev", "make", "pkg-config", "xz-utils", "binutils", "ca-certificates")
# The Debian that has the table's Python. Only its source is taken.
SUITE = "trixie"
# configure leaves a module out silently where its library is missing.
IMPORTS = "import bz2, ctypes, hashlib, lzma, ssl, uuid, zlib"
_SOURCE = "/opt/source"
# glibc 2.29 has these under a new version (without SVID's error handling), and the old one too.
RENEWED = ("exp", "exp2", "log", "log2", "pow")
# The first version of a port: x86_64's and AArch64's ABI begin there.
OLDEST = {"x64": "2.2.5", "arm64": "2.17"}
# glibc 2.30 has it.
WITHOUT = ("ac_cv_func_sem_clockwait=no",)
# What configure would find out by running a program, which a cross compiler's cannot.
_CROSS = ("ac_cv_file__dev_ptmx=yes", "ac_cv_file__dev_ptc=no", "ac_cv_buggy_getaddrinfo=no")


def header(arch: str) -> str:
    """C that binds what glibc renewed to its oldest version (GNU as, `.symver`)."""
    lines = [f'__asm__(".symver {name},{name}@GLIBC_{OLDEST[arch]}");' for name in RENEWED]
    # configure's CFLAGS go to assembler files as well.
    return "\n".join(("#ifndef __ASSEMBLER__", *lines, "#endif", ""))


def configure(arch: str, python: str, *, cross: bool) -> list[str]:
    """configure's arguments. Modules that nothing of ours imports are not left out here: they
    are in freeze.py, the one place.
    """
    command = [
        "../python/configure", "--quiet", f"--prefix={PREFIX}", "--enable-shared",
        "--without-ensurepip", "--disable-test-modules",
        f"CFLAGS=-w -include {_SOURCE}/{arch}.h", f"LDFLAGS=-Wl,-rpath,{PREFIX}/lib", *WITHOUT,
    ]  # fmt: skip
    if cross:
        command += [
            f"--host={GNU[arch]}", f"--build={GNU['x64']}",
            f"--with-build-python={PREFIX}/bin/python{python}", *_CROSS,
        ]  # fmt: skip
    return command


def build(room: Room, python: str, log: Path) -> None:
    """Put CPython into `room`, unless this recipe's is there. Raises RoomError."""
    made = room.root / PREFIX.lstrip("/")
    if not is_made(made, python):
        fetch(room, python, fresh(log))
        compile_for(room, room.arch, python, log, made)


def cross_build(room: Room, arch: str, python: str, log: Path, out: Path) -> None:
    """Make CPython for `arch` in `room`, which has its own; `out` gets it. Raises RoomError."""
    if is_made(out, python):
        return
    room.run("dpkg", "--add-architecture", arch, log=fresh(log))
    apt(room, "update", log=log)
    compiler = f"gcc-{GNU[arch].replace('_', '-')}"
    packages = [compiler, f"libc6-dev-{arch}-cross", *(f"{name}-dev:{arch}" for name in LIBRARIES)]
    apt(room, "install", "--yes", "--no-install-recommends", *packages, log=log)
    compile_for(room, arch, python, log, out)


def apt(room: Room, *arguments: str, log: Path) -> None:
    """apt-get in `room`, with this machine's name servers."""
    shutil.copyfile("/etc/resolv.conf", room.root / "etc" / "resolv.conf")
    # Root's alone: the sources' directory is not apt's own user's.
    command = ["apt-get", "--quiet", "-o", "APT::Sandbox::User=root", *arguments]
    room.run(*command, cwd=_SOURCE, env={"DEBIAN_FRONTEND": "noninteractive"}, log=log)


def fetch(room: Room, python: str, log: Path) -> None:
    """Debian's source tarball, by apt: its hash is in the index that Debian signs."""
    row = f"deb-src [signed-by={KEYRING}] {MIRROR} {SUITE} main\n"
    (room.root / "etc/apt/sources.list.d/source.list").write_text(row, encoding="utf-8")
    source = room.root / _SOURCE.lstrip("/")
    shutil.rmtree(source, ignore_errors=True)
    (source / "python").mkdir(parents=True)
    apt(room, "update", log=log)
    apt(room, "source", "--download-only", f"python{python}", log=log)
    tarballs = list(source.glob(f"python{python}_*.orig.tar.*z"))
    if len(tarballs) != 1:
        raise RoomError(f"Debian {SUITE} has no one source of Python {python}: {tarballs}")
    tar = ["tar", "--directory", "python", "--strip-components", "1", "--extract", "--file"]
    room.run(*tar, tarballs[0].name, cwd=_SOURCE, log=log)


def compile_for(room: Room, arch: str, python: str, log: Path, out: Path) -> None:
    source = room.root / _SOURCE.lstrip("/")
    (source / f"{arch}.h").write_text(header(arch), encoding="utf-8")
    shutil.rmtree(source / arch, ignore_errors=True)
    (source / arch).mkdir()
    place = f"{_SOURCE}/{arch}"
    pkg_config = {"PKG_CONFIG_LIBDIR": f"/usr/lib/{GNU[arch]}/pkgconfig"}
    command = configure(arch, python, cross=arch != room.arch)
    room.run(*command, cwd=place, env=pkg_config, log=log)
    room.run("sh", "-c", 'make --silent --jobs="$(nproc)"', cwd=place, log=log)
    room.run("make", "--silent", "install", f"DESTDIR={place}/out", cwd=place, log=log)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / arch / "out" / PREFIX.lstrip("/"), out, symlinks=True)
    (out / "recipe").write_text(recipe(python), encoding="utf-8")


def is_made(out: Path, python: str) -> bool:
    return (out / "recipe").is_file() and (out / "recipe").read_text("utf-8") == recipe(python)


def recipe(python: str) -> str:
    """Changes when this file does."""
    return f"{python} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}\n"
