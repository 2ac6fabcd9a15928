"""What this processor can do that decides between float32 and int8.

It must never guess: an instruction set that cannot be seen counts as absent.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Any

_CPUINFO = Path("/proc/cpuinfo")
_VNNI = frozenset({"AVX512VNNI", "AVX512_CLX", "AVX512_ICL", "AVX512_SPR", "avx_vnni"})
_DOT = frozenset({"ASIMDDP"})


def features(cpuinfo: Path = _CPUINFO) -> frozenset[str]:
    """Instruction sets as NumPy names them (it asks the processor itself), and `avx_vnni`.

    NumPy's name for one set differs by its version (numpy/_core/src/common/npy_cpu_features.c),
    and it knows no AVX-VNNI, which Linux lists in /proc/cpuinfo.
    """
    from importlib import import_module

    numpy_core: Any = import_module("numpy._core._multiarray_umath")
    found = {name for name, has in numpy_core.__cpu_features__.items() if has}
    if sys.platform == "linux":
        try:
            words = cpuinfo.read_text(encoding="ascii", errors="replace").split()
        except OSError:
            words = []
        found |= {"avx_vnni"} & set(words)
    return frozenset(found)


def integer_dot_product(found: frozenset[str]) -> str | None:
    """The name of the instruction set that multiplies and adds bytes exactly, or None.

    Without one, x86 adds pairs of products in 16 bits that saturate. Our weights are kept small
    enough for that never to happen, so the vectors are the same, but what is gained is little.
    """
    for wanted in (_VNNI, _DOT):
        if found & wanted:
            return sorted(found & wanted)[0]
    return None


def name(cpuinfo: Path = _CPUINFO) -> str:
    """The processor's own name, for people."""
    try:
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
