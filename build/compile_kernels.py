"""Compile the native kernels (app/cortex_embed/kernels/*.c) into a library for each target.

    python build/compile_kernels.py [--target NAME | --all] [--if-changed]

The compiler is `zig cc` of the PyPI package `ziglang`: every target from every machine, with no
system compiler. A library depends on nothing but the C library, and on no path, date or
environment: the same sources give the same bytes. It must never leave one that was made of other
sources than it says, nor compile a file for more than its processor check asks (SOURCES).
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import targets
from cortex_embed.errors import OutputError
from staging import exit_on_sigterm, staging

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from targets import Target

ROOT = Path(__file__).resolve().parent.parent
KERNELS = ROOT / "app" / "cortex_embed" / "kernels"
LIB = KERNELS / "lib"
# zig's: each target's C library and compiler-rt, as it has compiled them. Not the user's own cache.
CACHE = ROOT / "dist" / "zig-cache"
ZIG = "ziglang"

_AVX2 = ("-mavx2", "-mfma")
_AVX512 = (
    "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mprefer-vector-width=512",
)  # fmt: skip
# Or clang makes two slower instructions of vpdpwssd where it tunes for no one processor
# (TuningFastDPWSSD in LLVM's X86.td).
_DOT = ("-Xclang", "-target-feature", "-Xclang", "+fast-dpwssd")
Flags = tuple[str, ...]
# Which files are compiled for an architecture, and with what beyond its oldest processor. What a
# file may use here, `ck_supported` must ask for before it is called.
SOURCES: dict[str, dict[str, Flags]] = {
    "x64": {
        "kernels.c": (),
        "queue.c": (),
        "avx2.c": _AVX2,
        "avx_vnni.c": (*_AVX2, "-mavxvnni", *_DOT),
        "avx512.c": _AVX512,
        "avx512_vnni.c": (*_AVX512, "-mavx512vnni", *_DOT),
        "amx.c": (*_AVX512, "-mavx512vnni", "-mamx-tile", "-mamx-int8", "-mamx-bf16", *_DOT),
    },
    # zig's -march knows no `armv8.2-a`, and v8.2 as a whole is more than the check asks for.
    "arm64": {"kernels.c": (), "queue.c": (), "neon_dot.c": ("-mcpu=generic+dotprod",)},
}
# No contraction: a sum that one processor's compiler fuses and another's does not would give
# other bits.
COMMON = (
    "-O3", "-std=c11", "-fvisibility=hidden", "-fno-math-errno", "-fno-honor-nans",
    "-ffp-contract=off", "-fomit-frame-pointer", "-g0",
    "-Wall", "-Wextra", "-Werror",
    # zig cc traps undefined behaviour unless told otherwise.
    "-fno-sanitize=all",
)  # fmt: skip
# What zig calls them. zig's compiler-rt has mathematics and memcpy too: of it only what is used.
_ARCHES = {"x64": "x86_64", "arm64": "aarch64"}
_ABIS = {"linux": "linux-gnu.{}", "macos": "macos.{}", "windows": "windows-gnu"}
LINK = {
    "linux": ("-Wl,-z,defs", "-Wl,--gc-sections", "-Wl,--build-id=none", "-lpthread"),
    "macos": ("-Wl,-dead_strip",),
    # A hash in the place of the moment.
    "windows": ("-Wl,/Brepro",),
}
SUFFIXES = {"linux": "so", "macos": "dylib", "windows": "dll"}


class KernelsError(Exception):
    """Sources, compiler or library are not as they must be; says what to do."""


def library_name(target: Target) -> str:
    """`cortex-kernels-linux-x64.so`."""
    return f"cortex-kernels-{target.name}.{SUFFIXES[target.os]}"


def triple(target: Target) -> str:
    """The target in zig's words, with the table's oldest system: `x86_64-linux-gnu.2.28`."""
    version = ".".join(map(str, target.minimum_version))
    return f"{_ARCHES[target.arch]}-{_ABIS[target.os].format(version)}"


def sources(target: Target, kernels: Path = KERNELS) -> Mapping[str, Flags]:
    """The files to compile and each one's own flags.

    Raises KernelsError for a file that SOURCES does not have, and for one that is not there.
    """
    found = {path.name for path in kernels.glob("*.c")}
    known = {name for table in SOURCES.values() for name in table}
    if unknown := sorted(found - known):
        raise KernelsError(
            f"{kernels / unknown[0]} is in no row of SOURCES in {Path(__file__).name}: say there "
            "for which processors it is compiled."
        )
    wanted = SOURCES[target.arch]
    if missing := sorted(wanted.keys() - found):
        raise KernelsError(f"{kernels / missing[0]} is missing, which {target.name} needs.")
    return wanted


def zig_version() -> str:
    """Raises KernelsError where this environment has no zig."""
    try:
        return metadata.version(ZIG)
    except metadata.PackageNotFoundError:
        raise KernelsError(
            f"{sys.executable} has no {ZIG}, which compiles the kernels. `nox -s serve` installs "
            "it; so does `pip install --require-hashes -r requirements/export.lock`."
        ) from None


def digest(target: Target, kernels: Path = KERNELS) -> str:
    """SHA-256 over all that a library is made of: sources, flags, and zig's version.

    Raises KernelsError.
    """
    flags = (triple(target), *COMMON, *LINK[target.os], str(dict(sources(target, kernels))))
    text = hashlib.sha256("\0".join((zig_version(), *flags)).encode())
    for path in sorted(kernels.iterdir()):
        if path.is_file() and path.suffix != ".py":
            content = path.read_bytes()
            text.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    return text.hexdigest()


def stamp_of(library: Path) -> Path:
    """The file beside a library that says what it was made of, and its own SHA-256."""
    return library.with_name(f"{library.name}.stamp")


def stamp(made_of: str, library: Path) -> str:
    return f"{made_of} {hashlib.sha256(library.read_bytes()).hexdigest()}\n"


def is_current(target: Target, kernels: Path = KERNELS) -> bool:
    """Whether `target`'s library is there, whole, and of these very sources.

    Raises KernelsError.
    """
    library = kernels / LIB.name / library_name(target)
    made_of = digest(target, kernels)
    try:
        return stamp_of(library).read_text(encoding="utf-8") == stamp(made_of, library)
    except FileNotFoundError:
        return False


def compile_for(target: Target, kernels: Path = KERNELS) -> Path:
    """Compile `target`'s library into `kernels`/lib, in the place of an older one.

    Raises KernelsError with the compiler's words, OutputError.
    """
    made_of = digest(target, kernels)
    name = library_name(target)
    with staging(kernels / LIB.name) as part:
        scratch = (part / "scratch").resolve()  # the linker leaves other files beside its output
        scratch.mkdir()
        objects = []
        # Names without directories, so that none gets into a library.
        for source, flags in sources(target, kernels).items():
            objects.append(f"{source}.o")
            output = str(scratch / objects[-1])
            zig(target, *COMMON, *flags, "-c", source, "-o", output, cwd=kernels, scratch=scratch)
        flags = (*LINK[target.os], *_install_name(target))
        zig(target, "-shared", "-s", *flags, *objects, "-o", name, cwd=scratch, scratch=scratch)
        made = (scratch / name).replace(part / name)
        stamp_of(made).write_text(stamp(made_of, made), encoding="utf-8")
        out = kernels / LIB.name
        out.mkdir(exist_ok=True)
        # A killed process must leave no stamp beside a library that it is not of.
        stamp_of(out / name).unlink(missing_ok=True)
        made.replace(out / name)
        stamp_of(made).replace(stamp_of(out / name))
    return out / name


def _install_name(target: Target) -> tuple[str, ...]:
    """By default a macOS library states the path at which it was linked."""
    return (f"-Wl,-install_name,@rpath/{library_name(target)}",) if target.os == "macos" else ()


def zig(target: Target, *arguments: str, cwd: Path, scratch: Path) -> None:
    """Run zig's C compiler or linker for `target` in `cwd`. Raises KernelsError."""
    command = [sys.executable, "-m", ZIG, "cc", "-target", triple(target), *arguments]
    # What is ours is compiled anew: only then do two builds say something about each other.
    places = {"ZIG_GLOBAL_CACHE_DIR": str(CACHE), "ZIG_LOCAL_CACHE_DIR": str(scratch / "cache")}
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | places, capture_output=True, check=False,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    if done.returncode:
        raise KernelsError(f"{' '.join(command[1:])} failed:\n{done.stdout}{done.stderr}")


def chosen(name: str | None, *, every: bool) -> list[Target]:
    """The targets that were asked for; none on a machine that the table has no row for.

    Raises ValueError for a name that is none.
    """
    table = targets.load()
    if every:
        return table.targets
    if name:
        return [table.find(name)]
    try:
        return [targets.here(table)]
    except ValueError as why:
        print(f"No kernels for this machine, ONNX Runtime computes: {why}", file=sys.stderr)
        return []


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compile the native kernels.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--target", metavar="NAME", help="default: this machine's")
    which.add_argument("--all", action="store_true", help="every target of the table")
    parser.add_argument("--if-changed", action="store_true", help="not what is there and current")
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        for target in chosen(args.target, every=args.all):
            library = LIB / library_name(target)
            if args.if_changed and is_current(target):
                print(f"{target.name}: {library} is there and current.", flush=True)
                continue
            print(
                f"{target.name}: compiling the kernels; at first its C library too, a minute.",
                flush=True,
            )
            print(f"{compile_for(target)}: {library.stat().st_size / 1e3:.0f} kB", flush=True)
    except (KernelsError, OutputError, ValueError) as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
