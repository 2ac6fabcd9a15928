"""Attention in 16-bit integers and in floats, against float64: how near, and without overflow.

Norms of queries and keys are taken up to 1e18: their squares must be float32, as must the scores
of the attention in floats.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

import compile_kernels
from cortex_embed.models import encoder_graph

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.kernels.conftest import Floats, Probe

    Doubles = NDArray[np.float64]
    Case = Callable[[int, int], tuple[Floats, Floats, Floats]]

TEXT = (compile_kernels.KERNELS / "attention16.inc").read_text(encoding="utf-8")
TOP, VALUE_TOP, MIXED_TOP = (
    float(re.findall(rf"#define {name} ([\d.e]+)f", TEXT)[0])
    for name in ("TOP", "VALUE_TOP", "MIXED_TOP")
)
MOST = encoder_graph._MOST_POSITIONS
LENGTHS = [1, 2, 3, 15, 16, 17, 31, 33, 128, 511, 512, MOST]
QUERIES = 13
WIDTHS = pytest.mark.parametrize("width", [32, 64])


def exact(q: Floats, k: Floats, v: Floats) -> Doubles:
    scores = q.astype(np.float64) @ k.T.astype(np.float64)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return np.asarray(weights / weights.sum(1, keepdims=True) @ v.astype(np.float64))


def bound(q: Floats, k: Floats, v: Floats) -> float:
    """Of the error in integers, as a part of the largest value.

    Each of a row's numbers is off by half a step at most, so a score by `off`; so weights are off
    by e**(2 off) - 1 of their sum; rounded, by half of one more each, of at least `steps` in all;
    and values by half a step.
    """
    count, width = k.shape
    norms = [float(np.linalg.norm(x.astype(np.float64), axis=1).max()) for x in (q, k)]
    off = np.sqrt(width) / TOP * norms[0] * norms[1] * 1.01
    steps = min(TOP, MIXED_TOP / VALUE_TOP - count) - count / 2
    return float(np.expm1(min(2 * off, 50)) + count / steps + 0.6 / VALUE_TOP)


def normal(width: int, count: int, seed: int = 3) -> tuple[Floats, Floats, Floats]:
    """Scores of a few units, as models have them."""
    draw = np.random.RandomState(seed)
    q, k, v = (
        draw.standard_normal((rows, width)).astype(np.float32) for rows in (QUERIES, count, count)
    )
    return q * np.float32(1.5 / width**0.25), k * np.float32(1.5 / width**0.25), v


def alike(width: int, count: int) -> tuple[Floats, Floats, Floats]:
    """Every weight and every value the same: the largest sums there are."""
    return (
        np.ones((QUERIES, width), np.float32),
        np.ones((count, width), np.float32),
        np.ones((count, width), np.float32),
    )


def half_alike(width: int, count: int) -> tuple[Floats, Floats, Floats]:
    """One key twice as heavy as each other."""
    q, k, v = (np.zeros_like(x) for x in alike(width, count))
    q[:, 0], k[count // 2, 0], v[:] = 1, np.log(2), -1
    return q, k, v


def dominated(width: int, count: int) -> tuple[Floats, Floats, Floats]:
    q, k, v = normal(width, count)
    k[:] = 0
    k[count // 2] = 60
    return np.abs(q), k, v


def zeros(width: int, count: int) -> tuple[Floats, Floats, Floats]:
    q, k, v = alike(width, count)
    return q * 0, k * 0, v * 0


def single(width: int, count: int) -> tuple[Floats, Floats, Floats]:
    """Rows of one number, which takes all of the 16 bits, with either sign."""
    q, k, v = zeros(width, count)
    q[np.arange(QUERIES), np.arange(QUERIES) % width] = -3
    k[np.arange(count), np.arange(count) % width] = np.where(np.arange(count) % 3, 3, -3)
    v[np.arange(count), np.arange(count) % width] = np.where(np.arange(count) % 2, 3, -3)
    return q, k, v


def huge(width: int, count: int) -> tuple[Floats, Floats, Floats]:
    q, k, v = normal(width, count)
    q, k, v = (x / np.linalg.norm(x, axis=1).max() for x in (q, k, v))
    return q * np.float32(1e18), k * np.float32(1e18), v * np.float32(1e37)


def tiny(width: int, count: int) -> tuple[Floats, Floats, Floats]:
    """Everything subnormal."""
    q, k, v = normal(width, count)
    return q * np.float32(1e-39), k * np.float32(1e-39), v * np.float32(1e-39)


CASES: list[Case] = [normal, alike, half_alike, dominated, zeros, single, huge, tiny]


@WIDTHS
@pytest.mark.parametrize("count", LENGTHS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_it_is_as_near_as_it_can_be(case: Case, count: int, width: int, probe: Probe) -> None:
    q, k, v = case(width, count)
    largest = float(np.abs(v).max())
    wanted = exact(q, k, v)
    for integers in (False, True):
        found = probe.attention(q, k, v, integers=integers)
        assert np.isfinite(found).all()
        # What is mixed lies among the values, whatever became of the weights.
        assert (found <= v.max(0) + largest * 2e-4 + 1e-24).all()
        assert (found >= v.min(0) - largest * 2e-4 - 1e-24).all()
        if case is huge:
            continue  # no sum of such scores has a bit that is right
        nearest = bound(q, k, v) if integers else 1e-5
        # 1e-24: values below 1e-20 are taken for none.
        assert np.abs(found - wanted).max() <= largest * nearest + 1e-24


@WIDTHS
def test_texts_of_512_are_as_near_as_it_says(width: int, probe: Probe) -> None:
    most, mostly = re.findall(r"(\de-\d) of the largest value.*? (\de-\d) mostly", TEXT, re.DOTALL)[
        0
    ]
    drawn = [normal(width, n, seed) for n in LENGTHS if n <= 512 for seed in range(10)]
    same = [case(width, n) for case in (alike, half_alike) for n in LENGTHS if n <= 512]
    errors = [
        np.abs(probe.attention(q, k, v, integers=True) - exact(q, k, v)).max() / np.abs(v).max()
        for q, k, v in drawn + same
    ]
    assert max(errors) <= float(most)
    assert np.median(errors) <= 1.5 * float(mostly)


@WIDTHS
def test_one_huge_key_takes_it_all(width: int, probe: Probe) -> None:
    q, k, v = normal(width, 200)
    q, k = np.abs(q) * np.float32(1e17), k * np.float32(1e-3)
    k[77] = 1e17
    wanted = np.broadcast_to(v[77], q.shape)
    for integers in (False, True):
        found = probe.attention(q, k, v, integers=integers)
        assert np.abs(found - wanted).max() <= np.abs(v).max() * 0.6 / VALUE_TOP


def test_no_sum_reaches_32_bits() -> None:
    """The argument of attention16.inc, in numbers."""
    room = np.float64(2**31 - 1)
    # Rounded, a row of norm TOP is longer by half a unit in each of 64 numbers at most; and its
    # scale is three roundings off, as is the root of its norm.
    row = TOP * (1 + 4 * 2.0**-24) + np.sqrt(64) / 2
    assert row**2 < room
    assert TOP * (1 + 4 * 2.0**-24) + 0.5 < 2**15
    count = np.arange(1, MOST + 1)
    # Weights are scaled to this sum, which floats find with an error of their own; then each is
    # rounded up by half a unit at most. 16 lanes: a sum of `count` has count / 16 + 4 roundings.
    weights = (MIXED_TOP / VALUE_TOP - count) * (1 + (count / 16 + 8) * 2.0**-24) + count / 2
    assert (weights * (VALUE_TOP * (1 + 4 * 2.0**-24) + 0.5) < room).all()
    # With integers so large, a weight's rounding still leaves something of it.
    assert (weights / count > 16).all()


@WIDTHS
def test_the_bound_is_no_comfort(width: int) -> None:
    """Where it is used, it says something: below a byte's step, for texts of a usual length."""
    for count in (2, 17, 64):
        assert bound(*normal(width, count)) < 1 / 50
