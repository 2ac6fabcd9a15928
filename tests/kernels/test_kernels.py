"""Which library belongs to a platform, and what of it a processor runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import NativeEngineError
from cortex_embed.kernels import INSTRUCTION_SETS, PRECISIONS, best, library_path, load, supported
from targets import load as load_targets

if TYPE_CHECKING:
    from cortex_embed.kernels.binding import Kernels

MACHINES = {
    "linux-x64": ("linux", "x86_64"),
    "linux-arm64": ("linux", "aarch64"),
    "macos-x64": ("darwin", "x86_64"),
    "macos-arm64": ("darwin", "arm64"),
    "windows-x64": ("win32", "AMD64"),
}
SUFFIXES = {"linux": "so", "macos": "dylib", "windows": "dll"}


@pytest.mark.parametrize("target", load_targets().targets, ids=lambda target: target.name)
def test_every_target_has_a_library_of_its_own(target: object) -> None:
    name, system = getattr(target, "name", ""), getattr(target, "os", "")
    path = library_path(*MACHINES[name])
    assert path.name == f"cortex-kernels-{name}.{SUFFIXES[system]}"
    assert path.parent.name == "lib"


def test_another_platform_is_a_reason() -> None:
    with pytest.raises(NativeEngineError, match=r"there is no cortex-kernels-plan9-sparc\.so"):
        supported(library_path("plan9", "sparc"))


def test_what_is_no_library_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_bytes(b"\x7fELF, but no more")
    with pytest.raises(NativeEngineError, match=r"x\.so cannot be loaded"):
        supported(tmp_path / "x.so")


def test_the_best_comes_first(kernel_sets: tuple[str, ...]) -> None:
    places = [INSTRUCTION_SETS.index(one) for one in kernel_sets]
    assert places == sorted(places, reverse=True)
    for precision in PRECISIONS if kernel_sets else ():
        assert load(best(precision)).name in kernel_sets


def test_each_precision_has_the_best_that_it_gains_from() -> None:
    sets = ("AMX", "AVX-512 VNNI", "AVX2")
    assert [best(one, sets) for one in PRECISIONS] == ["AMX"] * 3
    assert [best(one, sets[1:]) for one in PRECISIONS] == ["AVX2", *["AVX-512 VNNI"] * 2]
    assert best("fp32", ("AVX-512 VNNI", "AVX-512", "AVX-VNNI", "AVX2")) == "AVX-512"
    for none in ((), ("AVX-512 VNNI",)):
        with pytest.raises(NativeEngineError, match="this processor has none of AVX2, AVX-VNNI"):
            best("fp32", none)


def test_a_lesser_one_can_be_asked_for(kernels: Kernels) -> None:
    assert kernels.name == INSTRUCTION_SETS[kernels.isa]


def test_one_that_the_processor_lacks_is_a_reason(kernel_sets: tuple[str, ...]) -> None:
    lacking = next(one for one in INSTRUCTION_SETS if one not in kernel_sets)
    with pytest.raises(NativeEngineError, match=f"{lacking} is not among"):
        load(lacking)
