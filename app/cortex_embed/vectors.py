"""Pure numpy over vectors: shorten, L2-normalize, quantize, base64.

Every operation works row by row, so a vector never depends on its neighbours. This module
must never know a model, a runtime or a wire format.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

Dtype = Literal["float", "int8", "uint8", "binary", "ubinary"]
"""What the numbers of a reply are; `quantize` makes them."""


def l2_normalize(vectors: Vectors) -> Vectors:
    """Rows of [n, d] scaled to length 1. An all-zero row stays zero (never NaN).

    The floor of 1e-12 is PyTorch's (`torch.nn.functional.normalize`), which
    sentence-transformers uses.
    """
    import numpy as np

    # In float64 and as a plain row sum: einsum with a dtype buffers across rows, which
    # would let a row's neighbours choose the order of its additions.
    wide = vectors.astype(np.float64)
    squares = np.add.reduce(wide * wide, axis=1)
    if len(squares) == 1:  # by a number: as an array, it takes as long again
        wide /= max(math.sqrt(squares[0]), 1e-12)
    else:
        wide /= np.maximum(np.sqrt(squares), 1e-12)[:, np.newaxis]
    normalized: Vectors = wide.astype(np.float32)
    return normalized


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` columns of [n, d]; all of them for None.

    Matryoshka embeddings (arXiv:2205.13147) are cut first and normalized after.
    """
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    return vectors[:, :dimensions]


def layer_normalize(vectors: Vectors) -> Vectors:
    """Rows of [n, d] with mean 0 and variance 1, as torch.nn.functional.layer_norm without
    weights gives them (variance over d, epsilon 1e-5)."""
    import numpy as np

    wide = vectors.astype(np.float64)
    centred = wide - wide.mean(axis=1, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=1, keepdims=True) + 1e-5)
    normalized: Vectors = (centred / deviation).astype(np.float32)
    return normalized


def shape(
    vectors: Vectors, *, dimensions: int | None, normalize: bool, layer_norm: bool = False
) -> Vectors:
    """Shorten, then normalize: the only order that leaves a cut vector with length 1.

    With `layer_norm`, a vector that is to be shortened is layer-normalized first.
    """
    import numpy as np

    if layer_norm and dimensions not in (None, vectors.shape[1]):
        vectors = layer_normalize(vectors)
    cut = shorten(vectors, dimensions)
    return l2_normalize(cut) if normalize else np.ascontiguousarray(cut)


def cosines(one: Vectors, others: Vectors) -> Vectors:
    """Cosine of [d] with each row of [n, d], all of length 1: float32 [n]."""
    import numpy as np

    # A row sum in float64, not a matrix product, whose order of additions depends on n.
    products = others.astype(np.float64) * one.astype(np.float64)
    similarities: Vectors = products.sum(axis=1).astype(np.float32)
    return similarities


def quantize(vectors: Vectors, dtype: Dtype) -> NDArray[Any]:
    """Rows of length 1, float32 [n, d], in a smaller type.

    - `int8` [n, d]: round(127 x). One scale for all, so that dot products stay comparable.
    - `uint8` [n, d]: the same plus 128.
    - `ubinary` uint8 [n, ceil(d / 8)]: one bit a dimension, 1 where x >= 0, the first dimension
      in the highest bit (vLLM's packing, and Cohere's).
    - `binary` int8 [n, ceil(d / 8)]: the same minus 128.
    """
    import numpy as np

    if dtype == "float":
        return vectors
    if dtype in {"int8", "uint8"}:
        levels: NDArray[Any] = np.rint(np.clip(vectors, -1, 1) * np.float32(127)).astype(np.int16)
    else:
        levels = np.packbits(vectors >= 0, axis=1).astype(np.int16) - 128
    signed = dtype in {"int8", "binary"}
    return levels.astype(np.int8) if signed else (levels + 128).astype(np.uint8)


def to_base64(vector: NDArray[Any]) -> str:
    """One vector's little-endian buffer in padded standard base64 (OpenAI's wire format)."""
    little = vector.astype(vector.dtype.newbyteorder("<"), copy=False)
    # Straight from the array's buffer, which is copied only where it has gaps.
    buffer = little if little.flags.c_contiguous else little.copy()
    return binascii.b2a_base64(buffer.data, newline=False).decode("ascii")


def from_base64(encoded: str) -> NDArray[np.float32]:
    """The inverse of `to_base64`. Raises ValueError."""
    import numpy as np

    return np.frombuffer(base64.b64decode(encoded, validate=True), dtype="<f4").astype(np.float32)
