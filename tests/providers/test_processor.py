from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from cortex_embed.providers import processor

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("found", "name"),
    [
        ({"AVX2", "AVX512VNNI"}, "AVX512VNNI"),
        ({"AVX2", "AVX512_ICL"}, "AVX512_ICL"),
        ({"AVX2", "avx_vnni"}, "avx_vnni"),
        ({"ASIMD", "ASIMDDP"}, "ASIMDDP"),
        ({"AVX2", "FMA3", "AVX512F"}, None),
        (set(), None),
    ],
)
def test_who_multiplies_bytes_exactly(found: set[str], name: str | None) -> None:
    assert processor.integer_dot_product(frozenset(found)) == name


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/cpuinfo is Linux's")
def test_avx_vnni_is_read_from_linux(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("model name\t: Some CPU\nflags\t\t: fpu avx2 avx_vnni\n")
    assert "avx_vnni" in processor.features(cpuinfo)
    cpuinfo.write_text("flags\t\t: fpu avx2 xavx_vnni\n")
    assert "avx_vnni" not in processor.features(cpuinfo)


def test_without_cpuinfo_nothing_is_guessed(tmp_path: Path) -> None:
    assert "avx_vnni" not in processor.features(tmp_path / "none")
    assert processor.name(tmp_path / "none")


def test_the_processors_own_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    assert processor.name(cpuinfo) == "Some CPU @ 3 GHz"
