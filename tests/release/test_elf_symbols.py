"""Blanked symbol tables: on a library that the dynamic linker loads before and after."""

from __future__ import annotations

import ctypes
import gzip
import sys
from pathlib import Path

import pytest

import compile_kernels
from elf_symbols import blanked
from tests.kernels.processors import MACHINE, NATIVE, zig

linux = pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux's")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with names of its own and of others."""
    directory = tmp_path_factory.mktemp("elf")
    lines = [f"static __attribute__((noinline)) int own_{i}(int x) {{ return x ^ {i}; }}\n"
             f"int told_{i}(int x) {{ return own_{i}(x) + 1; }}\n" for i in range(200)]  # fmt: skip
    (directory / "names.c").write_text("".join(lines), encoding="utf-8")
    made = directory / "names.so"
    zig(
        NATIVE,
        "-O0",
        "-g0",
        "-fno-sanitize=all",
        "-shared",
        "-fPIC",
        "names.c",
        "-o",
        str(made),
        cwd=directory,
    )
    return made


@linux
def test_it_is_smaller_packed_and_loads_as_before(library: Path, tmp_path: Path) -> None:
    before = library.read_bytes()
    after = blanked(before)
    assert b"own_117" in before
    assert b"own_117" not in after
    assert len(after) == len(before)
    assert len(gzip.compress(after)) < 0.9 * len(gzip.compress(before))
    (tmp_path / "blanked.so").write_bytes(after)
    loaded = ctypes.CDLL(str(tmp_path / "blanked.so"))
    assert [getattr(loaded, f"told_{i}")(5) for i in (0, 117)] == [6, (5 ^ 117) + 1]
    assert blanked(after) == after


@linux
def test_one_that_is_stripped_stays_as_it_is() -> None:
    stripped = (compile_kernels.LIB / compile_kernels.library_name(MACHINE)).read_bytes()
    assert blanked(stripped) == stripped


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (b"", "no 64-bit little-endian ELF"),
        (b"MZ" + bytes(100), "no 64-bit little-endian ELF"),
        (b"\x7fELF\x02\x01" + bytes(20), "cannot be read"),
        (b"\x7fELF\x02\x01" + b"\xff" * 100, "cannot be read"),
    ],
)
def test_what_is_none_is_an_error(wrong: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        blanked(wrong)
