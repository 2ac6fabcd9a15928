"""Linear layers in floats against float64: as exact as float32 added up one by one, in every set.

AMX multiplies in three parts of eight bits (amx_floats.inc), and so has other bits than the rest:
here is what it promises instead.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.kernels import INTEGERS_ONLY
from tests.kernels.conftest import Probe
from tests.kernels.processors import compile_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from tests.kernels.conftest import Floats

    Doubles = NDArray[np.float64]

COUNT = 37  # a block, a tile behind it, and a row of it that is not there
SHAPES = pytest.mark.parametrize(
    ("inputs", "outputs"), [(64, 192), (192, 128), (384, 384), (1536, 384)]
)
KINDS = ("normal", "outliers", "far apart", "of one sign", "thirds", "cancelled")


@pytest.fixture(scope="module")
def probes(
    tmp_path_factory: pytest.TempPathFactory, kernel_sets: tuple[str, ...]
) -> dict[str, Probe]:
    sets = [name for name in kernel_sets if name not in INTEGERS_ONLY]
    if not sets:
        pytest.skip("this processor has none of the instruction sets")
    return {
        name: Probe(ctypes.CDLL(str(compile_probe(name, tmp_path_factory.mktemp("probe")))))
        for name in sets
    }


def layer(kind: str, inputs: int, outputs: int) -> tuple[Floats, Floats]:
    draw = np.random.RandomState(5)

    def normal(*shape: int) -> Floats:
        return draw.standard_normal(shape).astype(np.float32)

    x, w = normal(COUNT, inputs), normal(inputs, outputs) * np.float32(0.05)
    if kind == "outliers":
        x[:, ::31] *= 50
    elif kind == "far apart":
        x, w = np.exp(3 * x) * np.sign(normal(COUNT, inputs)), np.exp(80 * w) * np.sign(w)
    elif kind == "of one sign":
        x, w = np.abs(x), np.abs(w)
    elif kind == "thirds":
        x[:], w[:] = 1 / 3, 1 / 3
    elif kind == "cancelled":
        x[:, 1::2], w[1::2] = x[:, ::2], -w[::2] * np.float32(1 + 1e-4)
    return x, w


def one_by_one(x: Floats, w: Floats) -> Floats:
    """What float32 gives, product by product."""
    sums = np.zeros((len(x), w.shape[1]), np.float32)
    for k in range(len(w)):
        sums += x[:, k, None] * w[k]
    return sums


def errors(y: Floats, x: Floats, w: Floats) -> Doubles:
    """By what the absolute products add up to."""
    a, b = x.astype(np.float64), w.astype(np.float64)
    return np.asarray(np.abs(y - a @ b) / (np.abs(a) @ np.abs(b)))


@SHAPES
@pytest.mark.parametrize("kind", KINDS)
def test_errors_are_those_of_float32(
    kind: str, inputs: int, outputs: int, probes: dict[str, Probe]
) -> None:
    x, w = layer(kind, inputs, outputs)
    plain = errors(one_by_one(x, w), x, w)
    for name, probe in probes.items():
        found = errors(probe.linear(x, w, np.zeros(outputs, np.float32)), x, w)
        # Of `inputs` products, each rounded once and added once (Higham 2002, 3.1).
        assert found.max() <= (inputs + 1) * 2.0**-24, name
        root = np.sqrt((found**2).mean())
        assert root <= 1.05 * np.sqrt((plain**2).mean()), f"{name}: {root * 2**24:.2f} units"


@SHAPES
def test_a_row_does_not_depend_on_its_neighbours(
    inputs: int, outputs: int, probes: dict[str, Probe]
) -> None:
    x, w = layer("normal", inputs, outputs)
    bias = np.arange(outputs).astype(np.float32) - x[0, 0]
    for probe in probes.values():
        whole = probe.linear(x, w, bias)
        assert len(np.unique(whole, axis=0)) == COUNT
        for rows in (slice(0, 1), slice(20, 21), slice(3, 19), slice(1, 33), slice(36, 37)):
            assert np.array_equal(probe.linear(x[rows].copy(), w, bias), whole[rows])


def test_no_bit_of_a_float_is_lost(probes: dict[str, Probe]) -> None:
    """Times one it is itself, whether it is a weight or an input; from 1e-30 to 1e30."""
    draw = np.random.RandomState(6)
    bits = draw.randint(0, 2**23, (64, 64)) | draw.randint(27, 227, (64, 64)) << 23
    values = (bits | draw.randint(0, 2, (64, 64)) << 31).astype(np.uint32).view(np.float32)
    one, nothing = np.eye(64, dtype=np.float32), np.zeros(64, np.float32)
    assert np.abs(values).min() < 1e-29
    assert np.abs(values).max() > 1e29
    for name, probe in probes.items():
        assert np.array_equal(probe.linear(values, one, nothing), values), name
        assert np.array_equal(probe.linear(one, values, nothing), values), name
