"""The approximations of vector.inc: what their comments state, and where they come from."""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

import compile_kernels
import polynomials

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from tests.kernels.conftest import Probe

TEXT = (compile_kernels.KERNELS / "vector.inc").read_text(encoding="utf-8")
FITS: dict[str, Callable[[], polynomials.Fit]] = {
    "exponential": polynomials.exponential,
    "gelu": polynomials.gelu,
    "near_gelu": polynomials.near_gelu,
}


@cache
def fit_of(name: str) -> polynomials.Fit:
    return FITS[name]()


NUMBER = r"(\d(?:\.\d)?e-\d)"


def comment(name: str) -> str:
    """The comment right before a function, on one line."""
    found = re.findall(r"/\*((?:(?!\*/).)*)\*/\nINLINE vf (\w+)\(", TEXT, re.DOTALL)
    (text,) = [text for text, function in found if function == name]
    return re.sub(r"\s+\*?\s*", " ", text)


def stated(name: str, *patterns: str) -> list[float]:
    match = re.search(" ".join(patterns), comment(name))
    assert match, comment(name)
    return [float(one) for one in match.groups()]


def coefficients(name: str, variable: str) -> list[float]:
    """As they stand there, from the constant up."""
    body = TEXT[TEXT.index(f"INLINE vf {name}(") :]
    body = body[: body.index("\n}\n")]
    found = re.findall(rf"{variable} = (?:all|madd\({variable}, \w+, all)\(([^f]+)f\)", body)
    return [float(one) for one in reversed(found)]


def phi(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in x])


@pytest.mark.parametrize("name", FITS)
def test_coefficients_are_the_script_s(name: str) -> None:
    """Not to the bit: each library for linear algebra ends a little elsewhere in the minimum."""
    fit = fit_of(name)
    assert len(fit.p) > 5
    assert coefficients(name, "p") == pytest.approx(fit.p, rel=1e-4)
    assert coefficients(name, "q") == pytest.approx(fit.q, rel=1e-4)
    least = f"error, {NUMBER}" if name != "near_gelu" else f"least absolute error, {NUMBER}"
    assert stated(name, least) == [pytest.approx(fit.error, rel=0.05)]


@pytest.mark.parametrize("name", FITS)
def test_the_least_error_is_level(name: str) -> None:
    """Of the best approximation, errors of alternating sign are equally large (Chebyshev)."""
    fit = fit_of(name)
    if name == "exponential":
        x = np.linspace(-0.5, 0.5, 20_001)
        errors = np.polynomial.Polynomial(fit.p)(x) / 2**x - 1
    else:
        reach = polynomials.GELU_REACH if fit.q else polynomials.NEAR_REACH
        x = np.linspace(0, reach, 20_001)
        below = np.polynomial.Polynomial(fit.q or [1.0])(x * x)
        errors = x * np.polynomial.Polynomial(fit.p)(x * x) / below - (phi(x) - 0.5)
    assert np.abs(errors).max() == pytest.approx(fit.error, rel=0.01)
    parts = np.split(errors, np.flatnonzero(np.diff(np.sign(errors))) + 1)
    peaks = [np.abs(part).max() for part in parts]
    assert sum(peak > 0.8 * fit.error for peak in peaks) >= len(fit.p) + len(fit.q) - 1


def test_exponential_is_as_near_as_it_says(probe: Probe) -> None:
    constant, growing = stated("exponential", f"{NUMBER} \\+ {NUMBER}", r"\|x\|")
    x = np.linspace(-87, 0, 2**21, dtype=np.float32)
    errors = np.abs(probe.function("exponential", x) / np.exp(x.astype(np.float64)) - 1)
    assert (errors <= constant + growing * np.abs(x)).all()
    edges = np.array([0, -0.0, -87, -88, -1e30, -np.inf] + [0] * 10, dtype=np.float32)
    found = probe.function("exponential", edges)
    assert found[:2].tolist() == [1, 1]
    assert set(found[2:6]) == {found[2]}
    assert found[2] == pytest.approx(math.exp(-87), rel=1e-5)


@pytest.mark.parametrize("name", ["gelu", "near_gelu"])
@pytest.mark.parametrize("reach", [1e-6, 0.1, 6, 30, 1e6])
def test_gelu_is_as_near_as_it_says(name: str, reach: float, probe: Probe) -> None:
    (bound,) = stated(name, f"at most {NUMBER}", r"\|x\|")
    x = np.linspace(-reach, reach, 2**16, dtype=np.float32)
    exact = x.astype(np.float64)
    errors = np.abs(probe.function(name, x) - exact * phi(exact))
    assert (errors <= bound * np.abs(x)).all()
    if reach == 6:
        # No bound that is far from what there is.
        assert (errors / np.abs(x)).max() > 0.7 * bound
