"""Pure numpy over vectors: shorten, L2-normalize, base64.

Every operation works row by row, so a vector never depends on its neighbours. This module
must never know a model, a runtime or a wire format.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


def l2_normalize(vectors: Vectors) -> Vectors:
    """Rows of [n, d] scaled to length 1. An all-zero row stays zero (never NaN).

    The floor of 1e-12 is PyTorch's (`torch.nn.functional.normalize`), which
    sentence-transformers uses.
    """
    import numpy as np

    # In float64 and as a plain row sum: einsum with a dtype buffers across rows, which
    # would let a row's neighbours choose the order of its additions.
    wide = vectors.astype(np.float64)
    lengths = np.sqrt((wide * wide).sum(axis=1))
    normalized: Vectors = (wide / np.maximum(lengths, 1e-12)[:, np.newaxis]).astype(np.float32)
    return normalized


def shorten(vectors: Vectors, dimensions: int | None) -> Vectors:
    """The first `dimensions` columns of [n, d]; all of them for None.

    Matryoshka embeddings (arXiv:2205.13147) are cut first and normalized after.
    """
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    return vectors[:, :dimensions]


def shape(vectors: Vectors, *, dimensions: int | None, normalize: bool) -> Vectors:
    """Shorten, then normalize: the only order that leaves a cut vector with length 1."""
    import numpy as np

    cut = shorten(vectors, dimensions)
    return l2_normalize(cut) if normalize else np.ascontiguousarray(cut)


def to_base64(vector: NDArray[np.float32]) -> str:
    """One vector as little-endian float32 in padded standard base64 (OpenAI's wire format)."""
    return base64.b64encode(vector.astype("<f4", copy=False).tobytes()).decode("ascii")


def from_base64(encoded: str) -> NDArray[np.float32]:
    """The inverse of `to_base64`. Raises ValueError."""
    import numpy as np

    return np.frombuffer(base64.b64decode(encoded, validate=True), dtype="<f4").astype(np.float32)
