"""The coefficients of app/cortex_embed/kernels/vector.inc: e**x and GELU without the C library's.

    python build/polynomials.py

prints them as they stand there, with the error that each fit leaves. They are found by least
squares whose weights follow the error (Lawson's algorithm: C. L. Lawson, thesis, UCLA 1961), which
comes to the least largest error. tests/kernels/test_polynomials.py holds vector.inc to it, and to
the bounds that its comments state. It must never be needed to build or to run anything.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np  # noqa: TID253 - arrays are all that this program has

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Doubles = NDArray[np.float64]

_NODES = 4000
_ROUNDS = 200
_LEAST = 1e-3  # of a weight's factor: no node is forgotten
GELU_REACH, NEAR_REACH = 5.5, 4.2


class Fit(NamedTuple):
    """Coefficients from the constant up, and the largest error of their fit in float64.

    `q` is empty for a polynomial, or the denominator, which begins with 1.
    """

    p: list[float]
    q: list[float]
    error: float


def exponential() -> Fit:
    """2**f for |f| <= 1/2, from 1 at 0; the error is relative."""
    f = _chebyshev(-0.5, 0.5)
    powers = np.stack([f**i for i in range(1, 7)], 1)
    # Relative to 2**f.
    found, error = _lawson(powers / 2 ** f[:, np.newaxis], (2**f - 1) / 2**f)
    return Fit([1.0, *map(float, found)], [], error)


def gelu() -> Fit:
    """(Phi(z) - 1/2) / z as P(z*z) / Q(z*z), |z| <= 5.5; the error is z P / Q's."""
    degree = 5
    x, square, wanted = _half_normal(GELU_REACH)
    powers = np.stack([square**i for i in range(degree + 1)], 1)
    weights, below = np.ones(_NODES), np.ones(_NODES)
    best: tuple[float, Doubles] = (math.inf, np.empty(0))
    for _ in range(_ROUNDS):
        # wanted * Q = x * P is linear in both; divided by the last Q, its error is the fraction's.
        rows = np.hstack([powers * x[:, np.newaxis], -powers[:, 1:] * wanted[:, np.newaxis]])
        scale = np.sqrt(weights) / below
        found = _least_squares(rows, wanted, scale)
        below = 1 + powers[:, 1:] @ found[degree + 1 :]
        errors = np.abs(x * (powers @ found[: degree + 1]) / below - wanted)
        best = min(best, (float(errors.max()), found), key=lambda one: one[0])
        weights = _shifted(weights, errors)
    p = _unscaled(best[1][: degree + 1], GELU_REACH)
    return Fit(p, _unscaled(np.append(1.0, best[1][degree + 1 :]), GELU_REACH), best[0])


def near_gelu() -> Fit:
    """(Phi(z) - 1/2) / z as P(z*z), |z| <= 4.2; the error is z P's."""
    x, square, wanted = _half_normal(NEAR_REACH)
    found, error = _lawson(np.stack([x * square**i for i in range(9)], 1), wanted)
    return Fit(_unscaled(found, NEAR_REACH), [], error)


def _half_normal(reach: float) -> tuple[Doubles, Doubles, Doubles]:
    """z from 0 to `reach`, (z / reach)**2, and Phi(z) - 1/2."""
    square = _chebyshev(0.0, 1.0)
    x = np.sqrt(square) * reach
    return x, square, np.array([math.erf(z / math.sqrt(2)) / 2 for z in x])


def _chebyshev(low: float, high: float) -> Doubles:
    nodes = np.cos(np.pi * (np.arange(_NODES) + 0.5) / _NODES)
    found: Doubles = (high + low) / 2 - nodes * (high - low) / 2
    return found


def _lawson(rows: Doubles, wanted: Doubles) -> tuple[Doubles, float]:
    """Coefficients of `rows` with the least largest error, and that error."""
    weights = np.ones(len(rows))
    best: tuple[float, Doubles] = (math.inf, np.empty(0))
    for _ in range(_ROUNDS):
        found = _least_squares(rows, wanted, np.sqrt(weights))
        errors = np.abs(rows @ found - wanted)
        best = min(best, (float(errors.max()), found), key=lambda one: one[0])
        weights = _shifted(weights, errors)
    return best[1], best[0]


def _least_squares(rows: Doubles, wanted: Doubles, scale: Doubles) -> Doubles:
    found = np.linalg.lstsq(rows * scale[:, np.newaxis], wanted * scale, rcond=None)[0]
    return np.asarray(found, dtype=np.float64)


def _shifted(weights: Doubles, errors: Doubles) -> Doubles:
    moved = weights * (errors / errors.mean() + _LEAST)
    found: Doubles = moved / moved.mean()
    return found


def _unscaled(coefficients: Doubles, reach: float) -> list[float]:
    """Of (z / reach)**2 to those of z**2."""
    return [float(c) / reach ** (2 * i) for i, c in enumerate(coefficients)]


def lines(fit: Fit, variable: str) -> list[str]:
    """The lines of vector.inc."""
    found = []
    for name, coefficients in (("p", fit.p), ("q", fit.q)):
        for place, one in enumerate(reversed(coefficients)):
            value = f"all({np.float32(one)!s}f)"
            first = f"    vf {name} = {value};"
            found.append(f"    {name} = madd({name}, {variable}, {value});" if place else first)
    return found


def main() -> None:
    for name, fit, variable in (
        ("exponential", exponential(), "f"),
        ("gelu", gelu(), "s"),
        ("near_gelu", near_gelu(), "s"),
    ):
        print(f"/* {name}: {fit.error:.1e} */", *lines(fit, variable), sep="\n")


if __name__ == "__main__":
    main()
