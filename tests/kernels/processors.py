"""Programs and libraries of the kernels' sources, for the tests of this directory.

They are compiled with the flags that build/compile_kernels.py gives the library, for this machine
and for others, and kept in zig's cache. It must never touch the library itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import compile_kernels
import targets
from cortex_embed.kernels import INSTRUCTION_SETS

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
MACHINE = targets.here(targets.load())
NATIVE = compile_kernels.triple(MACHINE)
# With a C library inside, so that qemu needs no other system's files.
ARM64 = "aarch64-linux-musl"
WINDOWS = "x86_64-windows-gnu"
SOURCES = dict(
    zip(
        INSTRUCTION_SETS,
        ("avx2.c", "avx_vnni.c", "avx512.c", "avx512_vnni.c", "amx.c", "neon_dot.c"),
        strict=True,
    )
)
_STRICT = ("-std=c11", "-D_GNU_SOURCE", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror")


def compile_objects(triple: str, out: Path) -> dict[str, Path]:
    """One object for every source of `triple`'s architecture, by the source's name."""
    table = compile_kernels.SOURCES["arm64" if triple.startswith("aarch64") else "x64"]
    made = {}
    for source, flags in table.items():
        made[source] = out / f"{source}.o"
        common = (*compile_kernels.COMMON, *flags)
        zig(triple, *common, "-c", source, "-o", str(made[source]), cwd=compile_kernels.KERNELS)
    return made


def compile_harness(triple: str, objects: Sequence[Path], out: Path) -> Path:
    """harness.c with `objects`, as a program in the directory `out`."""
    made = out / ("harness.exe" if "windows" in triple else "harness")
    static = ("-static",) if triple == ARM64 else ()
    common = (*_STRICT, "-O1", "-fno-sanitize=all", f"-I{compile_kernels.KERNELS}", *static)
    zig(triple, *common, "harness.c", *map(str, objects), "-o", str(made), cwd=HERE)
    return made


def compile_probe(instruction_set: str, out: Path) -> Path:
    """probe.c around one instruction set's source, as a library for this machine."""
    source = SOURCES[instruction_set]
    made = out / compile_kernels.library_name(MACHINE)
    flags = (*compile_kernels.COMMON, *compile_kernels.SOURCES[MACHINE.arch][source])
    include = (f"-I{compile_kernels.KERNELS}", f'-DSOURCE="{source}"', "-Wno-unused-function")
    # AMX's attentions are those of the others.
    of_others = ("avx512.c", "avx512_vnni.c") if instruction_set == "AMX" else ()
    more = [str(compile_kernels.KERNELS / source) for source in of_others]
    zig(NATIVE, *flags, *include, "-shared", "probe.c", *more, "-o", str(made), cwd=HERE)
    return made


def zig(triple: str, *arguments: str, cwd: Path) -> None:
    cache = str(compile_kernels.CACHE)
    places = {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    done = subprocess.run(
        [sys.executable, "-m", compile_kernels.ZIG, "cc", "-target", triple, *arguments],
        cwd=cwd, env=os.environ | places, capture_output=True, check=False,
        encoding="utf-8", errors="replace",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
