"""How an encoder is quantized: what `quantize` decides and `bert_graph` writes.

A linear layer reads bytes: xq = round(x / scale) + zero, kept in 0..255 (U8), times weights
in -127..127 (S8) with one scale per output channel. Where it is smoothed, it reads
(x - shift) / scale per input channel instead of x, and its weights make up for that
(SmoothQuant, arXiv:2211.10438). This module must never compute anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INPUTS = ("attention", "output", "up", "down")
"""The four places of an encoder layer whose values are quantized: what query, key and value
read; what the attention's output layer reads; what each feed-forward layer reads."""
INPUT_OF = {
    "query": "attention",
    "key": "attention",
    "value": "attention",
    "output": "output",
    "up": "up",
    "gate": "up",
    "down": "down",
}


@dataclass(frozen=True, slots=True)
class QuantizedLinear:
    """`weight` int8 [in, out]; `weight_scale` float32 [out]; `bias` float32 [out], corrected.

    `scale` 0 means one scale per row, found at run time from the row's own peak.
    """

    weight: NDArray[np.int8]
    weight_scale: NDArray[np.float32]
    bias: NDArray[np.float32]
    scale: float
    zero: int


@dataclass(frozen=True, slots=True)
class Smoothing:
    """x = smoothed * scale + shift, per channel; both float32 [channels]."""

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class QuantizedTable:
    """Embedding rows as bytes: row = values * scale; int8 [rows, hidden], float32 [rows, 1]."""

    values: NDArray[np.int8]
    scale: NDArray[np.float32]


@dataclass(slots=True)
class Recipe:
    """Empty: everything stays float32. Keys are `LAYER.PART`, e.g. `3.up`."""

    linears: dict[str, QuantizedLinear] = field(default_factory=dict)
    smoothing: dict[str, Smoothing] = field(default_factory=dict)
    words: QuantizedTable | None = None
