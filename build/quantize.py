"""Decide how an encoder is quantized, from what calibration texts show.

Batch-invariant by construction: an activation's scale is a constant found here, or its own
row's peak, never anything of the batch. Steps, per layer:

1. smoothing (SmoothQuant, arXiv:2211.10438, with a shift per channel as in Outlier
   Suppression+, arXiv:2304.09145) of what the layer normalizations give: folded into them, so
   it costs one multiplication for the residual (what attention mixes is better left as it is);
2. one scale for an input, with the least squared error weighted by how much each channel
   matters; the input of the feed-forward's second layer is scaled row by row instead;
3. the weights refitted to the error that the input's rounding makes, and rounded one input
   channel at a time so that later ones make up for earlier ones (GPTQ, arXiv:2210.17323);
4. the bias corrected by the mean error that is left (arXiv:1906.04721).

It must never see a text that is used to judge the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recipe import INPUT_OF, INPUTS, QuantizedLinear, QuantizedTable, Recipe, Smoothing

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from bert_weights import Encoder, Layer, Linear

    Floats = NDArray[np.float32]
    Observed = NDArray[np.float16 | np.float32]

_SMOOTHED = ("attention", "up")
_BY_ROW = ("down",)
_ALPHA = 0.75  # how much of a channel's reach the weights take over
_TOP = 127
_LIMIT = 127
_PAIR_LIMIT = 128
_ROW_ZERO = 32  # of 255: GELU's output goes down to -0.17 only
_GELU_LEAST = -0.1701
_MIDDLE = 128


@dataclass(frozen=True, slots=True)
class _Input:
    """One quantizable input as calibration saw it: exact, and as the bytes will show it."""

    exact: Floats
    smoothed: Floats
    seen: Floats
    scale: float
    zero: int


def quantize(encoder: Encoder, observed: Mapping[str, Observed]) -> Recipe:
    """The recipe for every linear layer and the word table.

    `observed` maps `LAYER.INPUT` (see recipe.INPUTS) to float16 or float32 [tokens, channels] of
    real tokens (no padding) of the calibration texts.
    """
    import numpy as np

    recipe = Recipe(words=_table(encoder.words))
    for index, layer in enumerate(encoder.layers):
        for place in _SMOOTHED:
            matrices = [x.weight for p, x in layer.linears.items() if INPUT_OF[p] == place]
            name = f"{index}.{place}"
            recipe.smoothing[name] = _smoothing(observed[name].astype(np.float32), matrices)
    for index, layer in enumerate(encoder.layers):
        for place in INPUTS:
            exact = observed[f"{index}.{place}"].astype(np.float32)
            _quantize_place(recipe, index, layer, place, exact)
    return recipe


def _quantize_place(recipe: Recipe, index: int, layer: Layer, place: str, exact: Floats) -> None:
    """Every linear layer that reads `place`."""
    import numpy as np

    smoothing = recipe.smoothing.get(f"{index}.{place}")
    smoothed = exact if smoothing is None else (exact - smoothing.shift) / smoothing.scale
    linears = {p: linear for p, linear in layer.linears.items() if INPUT_OF[p] == place}
    stretch = np.float32(1) if smoothing is None else smoothing.scale[:, np.newaxis]
    weights = {p: linear.weight * stretch for p, linear in linears.items()}
    importance = sum((w * w).sum(1) for w in weights.values())
    given = _seen(place, exact, smoothed, np.asarray(importance, dtype=np.float32))
    hessian = (given.seen.T @ given.seen).astype(np.float64)
    for part, linear in linears.items():
        shift = _missing_shift(recipe, index, part)
        recipe.linears[f"{index}.{part}"] = _linear(given, weights[part], linear, shift, hessian)


def _missing_shift(recipe: Recipe, index: int, part: str) -> Any:
    """What the residual lacks that this layer's output is added to (see bert_graph.States)."""
    place = {"output": f"{index}.attention", "down": f"{index}.up"}.get(part)
    smoothing = recipe.smoothing.get(place) if place else None
    return 0 if smoothing is None else smoothing.shift


def _smoothing(x: Floats, matrices: list[Floats]) -> Smoothing:
    import numpy as np

    shift = (x.min(0) + x.max(0)) / 2
    reach = np.maximum(np.abs(x - shift).max(0), 1e-4)
    width = np.maximum(np.abs(np.concatenate(matrices, axis=1)).max(1), 1e-4)
    scale = reach**_ALPHA / width ** (1 - _ALPHA)
    scale = scale / np.exp(np.log(scale).mean())
    return Smoothing(scale.astype(np.float32), shift.astype(np.float32))


def _seen(place: str, exact: Floats, smoothed: Floats, importance: Floats) -> _Input:
    """The input as the graph's bytes will show it to the weights."""
    import numpy as np

    if place in _BY_ROW:
        # A gated layer's products go as far down as up, and take the middle.
        zero, scale = _ROW_ZERO if smoothed.min() >= _GELU_LEAST else _MIDDLE, 0.0
        reach = smoothed if zero == _ROW_ZERO else np.abs(smoothed)
        step: Any = np.maximum(reach.max(1, keepdims=True), 1e-7) / (255 - zero)
    else:
        zero, scale = _MIDDLE, _scale(smoothed, importance)
        step = np.float32(scale)
    codes = np.clip(np.rint(smoothed / step), -zero, 255 - zero)
    return _Input(exact, smoothed, (codes * step).astype(np.float32), scale, zero)


def _scale(x: Floats, importance: Floats) -> float:
    """The scale with the least squared error, each channel weighted by `importance`."""
    import numpy as np

    magnitude = np.abs(x)
    peak = float(magnitude.max())
    weights = np.broadcast_to(importance, x.shape)
    counts, edges = np.histogram(magnitude, 8192, (0, peak), weights=weights)
    centre = (edges[1:] + edges[:-1]) / 2
    errors = {}
    for share in np.linspace(0.15, 1, 52):
        scale = peak * share / _TOP
        rounded = np.minimum(np.rint(centre / scale), _TOP) * scale
        errors[float(scale)] = float((counts * (rounded - centre) ** 2).sum())
    return min(errors, key=lambda scale: errors[scale])


def _linear(
    given: _Input, weight: Floats, linear: Linear, shift: Any, hessian: NDArray[np.float64]
) -> QuantizedLinear:
    """`weight` is `linear`'s for the smoothed input; `shift` is added to every output."""
    import numpy as np

    # smoothed - seen is what rounding the input lost; refit the weights to what is left.
    ridge = 0.002 * np.diag(hessian).mean() * np.eye(len(weight))
    lost = given.seen.T @ ((given.smoothed - given.seen) @ weight)
    fitted = weight + np.linalg.solve(hessian + ridge, lost.astype(np.float64))
    codes, scale = round_weight(fitted.astype(np.float32), hessian)
    wanted = given.exact.mean(0) @ linear.weight + linear.bias
    bias = wanted - given.seen.mean(0) @ (codes * scale) + shift
    return QuantizedLinear(codes, scale, bias.astype(np.float32), given.scale, given.zero)


def round_weight(weight: Floats, hessian: NDArray[np.float64]) -> tuple[NDArray[np.int8], Floats]:
    """GPTQ: int8 [in, out] that cannot saturate, and one scale per output, float32 [out].

    `hessian` is x'x of the rows that the weights will meet, float64 [in, in].

    x86 without an integer dot product multiplies two neighbours along `in` by unsigned bytes
    and adds them in one saturating 16-bit lane (vpmaddubsw), so 255 * (a + b) stays below 2**15
    here: every x86 processor then computes the same integers.
    """
    import numpy as np

    scale = _weight_scale(weight, np.diag(hessian))
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(weight))
    order = np.argsort(-np.diag(damped), kind="stable")
    upper = np.linalg.cholesky(np.linalg.inv(damped[np.ix_(order, order)])).T
    left = weight[order].astype(np.float64)
    codes = np.zeros((len(weight) + 1, weight.shape[1]))  # one more: the last row's neighbour
    block = 64
    for start in range(0, len(left), block):
        end = min(start + block, len(left))
        errors = np.zeros((end - start, left.shape[1]))
        for row in range(start, end):
            place = order[row]
            low, high = _bounds(codes[place ^ 1])
            codes[place] = np.clip(np.rint(left[row] / scale), low, high)
            errors[row - start] = (left[row] - codes[place] * scale) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], errors[row - start])
        left[end:] -= upper[start:end, end:].T @ errors
    return codes[:-1].astype(np.int8), scale.astype(np.float32)


def _bounds(neighbour: NDArray[np.float64]) -> tuple[Any, Any]:
    """What a weight may be beside `neighbour` (0 where that is not chosen yet)."""
    import numpy as np

    low = np.maximum(-_LIMIT, -_PAIR_LIMIT - np.minimum(neighbour, 0))
    return low, np.minimum(_LIMIT, _PAIR_LIMIT - np.maximum(neighbour, 0))


def _weight_scale(weight: Floats, importance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Per output channel, the scale with the least error weighted by input channel.

    A larger scale makes smaller weights, of which fewer pairs meet their bound.
    """
    import numpy as np

    peak = np.maximum(np.abs(weight).max(0), 1e-8).astype(np.float64)
    best = np.full(weight.shape[1], np.inf)
    scale: NDArray[np.float64] = peak / _LIMIT
    for share in np.linspace(0.75, 2, 26):
        tried = peak * share / _LIMIT
        codes = np.clip(np.rint(weight / tried), -_LIMIT, _LIMIT)
        partner = codes[np.arange(len(codes)) ^ 1] if len(codes) % 2 == 0 else 0 * codes
        low, high = _bounds(partner)
        # Each of a pair gives way by half of what both are over.
        over = np.maximum(codes - high, 0) / 2 - np.maximum(low - codes, 0) / 2
        error = (codes - over) * tried - weight
        squared = (error * error * importance[:, np.newaxis]).sum(0)
        better = squared < best
        best[better], scale[better] = squared[better], tried[better]
    return scale


def _table(words: Floats) -> QuantizedTable:
    import numpy as np

    scale = np.maximum(np.abs(words).max(1, keepdims=True), 1e-12) / 127
    codes = np.clip(np.rint(words / scale), -127, 127).astype(np.int8)
    return QuantizedTable(codes, scale.astype(np.float32))
