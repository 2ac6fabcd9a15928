"""The native kernels: a small C library that runs a whole encoder, and where it is.

It exists so that the rest of the program names instruction sets and calls functions, never a
file or a symbol. It must never know a model, and imports nothing of the package but errors.
"""

from __future__ import annotations

import platform
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import NativeEngineError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.kernels.binding import Kernels

INSTRUCTION_SETS = ("AVX2", "AVX-VNNI", "AVX-512", "AVX-512 VNNI", "AMX", "NEON dot product")
"""From the least to the most; the place is the number that kernels.h gives it."""
INTEGERS_ONLY = frozenset({"AVX-VNNI", "AVX-512 VNNI"})
"""Those that float32 gains nothing from: its kernels are those of the set without them."""
POOLINGS = ("mean", "cls")
"""Likewise."""
PRECISIONS = ("fp32", "int8", "int16")
"""Likewise: what the linear layers multiply."""
PHASES = ("embed", "qkv", "attention", "output", "norm", "up", "quantize", "down", "pool")
"""Likewise: where a run's time goes, for `Model.ticks`; `up` has the GELU in it."""
_SYSTEMS = {"linux": ("linux", "so"), "darwin": ("macos", "dylib"), "win32": ("windows", "dll")}
_MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}


def library_path(system: str = sys.platform, machine: str = "") -> Path:
    """Where this platform's library lies, or would: beside this package, frozen or not."""
    name, suffix = _SYSTEMS.get(system, (system, "so"))
    word = (machine or platform.machine()).lower()
    target = f"{name}-{_MACHINES.get(word, word)}"
    return Path(__file__).resolve().parent / "lib" / f"cortex-kernels-{target}.{suffix}"


@cache
def supported(library: Path | None = None) -> tuple[str, ...]:
    """The instruction sets that the library has and this processor runs, the best one first.

    Raises NativeEngineError where there is no library, or none that this program can call.
    """
    from cortex_embed.kernels import binding

    bits = binding.functions(library or library_path()).ck_supported()
    return tuple(n for i, n in reversed(list(enumerate(INSTRUCTION_SETS))) if bits >> i & 1)


def best(precision: str, sets: Sequence[str] | None = None) -> str:
    """The instruction set to compute in `precision` with, of `sets` or of those that this
    processor runs, the best one first.

    Raises NativeEngineError where there is none.
    """
    for one in supported() if sets is None else sets:
        if precision != "fp32" or one not in INTEGERS_ONLY:
            return one
    raise NativeEngineError("this processor has none of " + ", ".join(INSTRUCTION_SETS))


def load(instruction_set: str) -> Kernels:
    """The kernels of `instruction_set`. Raises NativeEngineError where this processor lacks it."""
    from cortex_embed.kernels import binding

    there = supported()
    if instruction_set not in there:
        raise NativeEngineError(f"{instruction_set} is not among {', '.join(there)}")
    return binding.Kernels(
        binding.functions(library_path()), INSTRUCTION_SETS.index(instruction_set)
    )
