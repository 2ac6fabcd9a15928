"""kernels.h and its ctypes, held against each other; and the functions of the library."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import NativeEngineError
from cortex_embed.kernels import INSTRUCTION_SETS, POOLINGS, binding

if TYPE_CHECKING:
    from cortex_embed.kernels.binding import Kernels

HEADER = (Path(binding.__file__).parent / "kernels.h").read_text(encoding="utf-8")
STRUCTS = {
    "ck_shape": binding.Shape,
    "ck_linear": binding.Linear,
    "ck_norm": binding.Norm,
    "ck_layer": binding.Layer,
    "ck_model": binding.Model,
    "ck_team": binding.Team,
}
SHAPE = binding.Shape(layers=2, hidden=64, heads=2, intermediate=128, precision=1)


def declared(struct: str) -> list[tuple[str, str]]:
    """Name and C type of every member, in order."""
    match = re.search(r"typedef struct \{([^}]*)\} " + struct + ";", HEADER)
    assert match
    members = []
    for line in re.sub(r"/\*.*?\*/", "", match[1], flags=re.S).split(";")[:-1]:
        parts = re.fullmatch(r"\s*((?:const )?\w+)\s+(.+?)\s*", line, re.S)
        assert parts
        kind = parts[1]
        for name in parts[2].split(","):
            found = re.fullmatch(r"\s*(\*?)(\w+)(\[6\])?\s*", name)
            assert found
            members.append((found[2], kind.removeprefix("const ") + found[1] + (found[3] or "")))
    return members


@pytest.mark.parametrize("struct", STRUCTS)
def test_every_field_is_the_headers(struct: str) -> None:
    kinds = {
        "int32_t": ctypes.c_int32,
        "int64_t": ctypes.c_int64,
        "float": ctypes.c_float,
        "ck_shape": binding.Shape,
        "ck_norm": binding.Norm,
        "ck_linear[6]": binding.Linear * 6,
        "ck_layer*": ctypes.POINTER(binding.Layer),
    }
    expected = [(n, kinds.get(k, ctypes.c_void_p)) for n, k in declared(struct)]
    assert [field[:2] for field in STRUCTS[struct]._fields_] == expected
    assert all(kind.endswith("*") for _, kind in declared(struct) if kind not in kinds)


def test_numbers_are_the_headers() -> None:
    numbers = dict(re.findall(r"(CK_\w+)\s*=?\s(\d+)", HEADER))
    assert int(numbers["CK_ABI"]) == binding.ABI
    assert int(numbers["CK_ISAS"]) == len(INSTRUCTION_SETS)
    names = [re.sub(r"\W", "_", n.upper()).replace("AVX_512", "AVX512") for n in INSTRUCTION_SETS]
    names[5] = "NEON_DOT"
    assert [int(numbers[f"CK_{name}"]) for name in names] == [0, 1, 2, 3, 4, 5]
    assert [int(numbers[f"CK_{name.upper()}"]) for name in POOLINGS] == [0, 1]


def test_what_a_shape_takes(kernels: Kernels) -> None:
    size = kernels.packed_bytes(SHAPE)
    assert size % 64 == 0
    assert size >= 2 * (4 * 64 * 64 + 2 * 64 * 128)
    model = binding.Model(SHAPE, kernels.isa)
    one, many = (
        kernels.workspace_bytes(model, tokens=n, texts=1, longest=n, ranks=1) for n in (10, 1000)
    )
    assert 0 < 10 * one < 10 * many
    more = kernels.workspace_bytes(model, tokens=10, texts=1, longest=10, ranks=4)
    assert one < more < 4 * one + 64


@pytest.mark.parametrize("change", [{"hidden": 32}, {"heads": 3}, {"intermediate": 100}])
def test_another_shape_is_a_reason(kernels: Kernels, change: dict[str, int]) -> None:
    counts = {"layers": 2, "hidden": 64, "heads": 2, "intermediate": 128} | change
    with pytest.raises(NativeEngineError, match="do not run a model of its shape"):
        kernels.packed_bytes(binding.Shape(**counts))


@pytest.mark.parametrize("size", [1, 64, 100_000])
def test_buffers_begin_at_a_cache_line(size: int) -> None:
    for _ in range(5):
        buffer = binding.aligned(size)
        assert (buffer.nbytes, buffer.ctypes.data % 64) == (size, 0)
