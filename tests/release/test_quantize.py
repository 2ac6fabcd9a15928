from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from bert_weights import Encoder, Layer, Linear, Norm
from quantize import quantize, round_weight
from recipe import INPUTS

HIDDEN, WIDE = 32, 64


def floats(draw: np.random.RandomState, *shape: int) -> NDArray[np.float32]:
    values: NDArray[np.float32] = draw.standard_normal(shape).astype(np.float32)
    return values


def encoder() -> Encoder:
    draw = np.random.RandomState(3)

    def linear(inputs: int, outputs: int) -> Linear:
        return Linear(floats(draw, inputs, outputs) / np.float32(6), floats(draw, outputs))

    square = {p: linear(HIDDEN, HIDDEN) for p in ("query", "key", "value", "output")}
    linears = {**square, "up": linear(HIDDEN, WIDE), "down": linear(WIDE, HIDDEN)}
    norm = Norm(np.ones(HIDDEN, np.float32), np.zeros(HIDDEN, np.float32))
    return Encoder(floats(draw, 50, HIDDEN), floats(draw, 8, HIDDEN), norm,
                   (Layer(linears, norm, norm),))  # fmt: skip


def observed(seed: int = 1) -> dict[str, np.ndarray]:
    draw = np.random.RandomState(seed)
    seen = {f"0.{place}": floats(draw, 500, HIDDEN) for place in INPUTS}
    wide = floats(draw, 500, WIDE)
    seen["0.down"] = np.maximum(wide, -0.17)
    # One channel that stands out, as encoders have them.
    seen["0.attention"][:, 3] = 20 + floats(draw, 500)
    return seen


def test_every_linear_layer_comes_close_to_its_float_self() -> None:
    bert, seen = encoder(), observed()
    recipe = quantize(bert, seen)
    for part, linear in bert.layers[0].linears.items():
        place = {"output": "output", "up": "up", "down": "down"}.get(part, "attention")
        x = seen[f"0.{place}"]
        q = recipe.linears[f"0.{part}"]
        smoothing = recipe.smoothing.get(f"0.{place}")
        read = x if smoothing is None else (x - smoothing.shift) / smoothing.scale
        step = q.scale or np.maximum(read.max(1, keepdims=True), 1e-7) / (255 - q.zero)
        codes = np.clip(np.rint(read / step), -q.zero, 255 - q.zero)
        ours = (codes * step) @ (q.weight * q.weight_scale) + q.bias
        feeds = {"output": "0.attention", "down": "0.up"}.get(part)
        missing = recipe.smoothing[feeds].shift if feeds else 0
        exact = x @ linear.weight + linear.bias
        error = np.linalg.norm(ours - missing - exact) / np.linalg.norm(exact)
        assert error < 0.02, part


def test_the_word_table_keeps_its_rows() -> None:
    bert = encoder()
    table = quantize(bert, observed()).words
    assert table is not None
    error = np.abs(table.values * table.scale - bert.words).max(1)
    assert (error <= np.abs(bert.words).max(1) / 127 / 2 + 1e-6).all()


def test_the_same_observations_give_the_same_recipe() -> None:
    one, two = (quantize(encoder(), observed()) for _ in range(2))
    for name, linear in one.linears.items():
        np.testing.assert_array_equal(linear.weight, two.linears[name].weight)


def test_rounding_by_what_the_weights_meet_beats_plain_rounding() -> None:
    draw = np.random.RandomState(0)
    mix = floats(draw, 24, 24)
    x = floats(draw, 2000, 24) @ mix  # correlated channels
    weight = floats(draw, 24, 10)
    codes, scale = round_weight(weight, (x.T @ x).astype(np.float64))
    step = np.abs(weight).max(0) / 127
    plain = np.rint(weight / step) * step
    ours = np.linalg.norm(x @ (codes * scale - weight))
    assert ours < np.linalg.norm(x @ (plain - weight))
    assert np.abs(codes).max() <= 127


@pytest.mark.parametrize("rows", [2, 33, 64])
def test_no_pair_of_weights_can_saturate_sixteen_bits(rows: int) -> None:
    draw = np.random.RandomState(rows)
    x = floats(draw, 300, rows)
    weight = floats(draw, rows, 50) + 2  # neighbours of one sign: the worst case
    codes, _ = round_weight(weight, (x.T @ x).astype(np.float64))
    wide, top = codes.astype(int), 255
    for first, second in zip(wide[0::2], wide[1::2], strict=False):
        for a, b in ((0, top), (top, 0), (top, top)):
            products = first * a + second * b
            assert products.max() < 2**15
            assert products.min() >= -(2**15)


@pytest.mark.parametrize("seed", [1, 2])
def test_activation_scales_are_constants_or_the_rows_own(seed: int) -> None:
    recipe = quantize(encoder(), observed(seed))
    assert {n: q.scale == 0 for n, q in recipe.linears.items()} == {
        n: n.endswith("down") for n in recipe.linears
    }
