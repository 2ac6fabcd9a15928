"""Texts and the vectors that their model must give: the published ones, and our own in full.

`selftest` and the tests read them. Ours come from `build/parity.py`, which computes them with
the reference implementation; this module must never compute one.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cortex_embed.domain import Golden
from cortex_embed.errors import ModelFileError
from cortex_embed.models.catalogue import find
from cortex_embed.models.table import Table
from cortex_embed.vectors import from_base64, shape

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.models.catalogue import SumCheck

_SCHEMA = 1
_WAY_OUT = "The file is damaged: install the package again."


def goldens(model_id: str) -> tuple[Golden, ...]:
    """All goldens of a catalogue model: published ones first. Empty for an unknown id.

    Raises ModelFileError if the file of ours is damaged.
    """
    from importlib.resources import files

    entry = find(model_id)
    if entry is None:
        return ()
    ours = files("cortex_embed.models") / "golden" / f"{entry.spec.id}.json"
    return entry.goldens + (read_goldens(ours) if ours.is_file() else ())


def sum_check(model_id: str) -> SumCheck | None:
    """The published sums of a catalogue model's float32 vectors, if anybody states them."""
    entry = find(model_id)
    return entry.sum_check if entry else None


def read_goldens(file: Path | Traversable) -> tuple[Golden, ...]:
    """Full vectors from a file written by `build/parity.py --write-golden`."""
    try:
        root = Table(json.loads(file.read_text(encoding="utf-8")), str(file), way_out=_WAY_OUT)
    except (OSError, ValueError) as why:
        raise ModelFileError(f"{file} cannot be read: {why}. {_WAY_OUT}") from None
    if root.whole("schema", low=1) != _SCHEMA:
        raise ModelFileError(f"{file}: `schema` must be {_SCHEMA}. {_WAY_OUT}")
    tolerance = root.number("tolerance")
    source = root.text("source")
    return tuple(_golden(item, tolerance, source) for item in root.tables("goldens"))


def _golden(table: Table, tolerance: float, source: str) -> Golden:
    try:
        vector = from_base64(table.text("vector"))
    except ValueError as why:
        raise ModelFileError(f"{table.where}: `vector` is damaged: {why}. {_WAY_OUT}") from None
    return Golden(
        text=table.text("text"),
        vector=tuple(vector.tolist()),
        tolerance=tolerance,
        source=source,
    )


def cosine_distance(golden: Golden, pooled: NDArray[np.float32]) -> float:
    """1 - cosine of a golden that states a whole vector, and a text's vector.

    `pooled` is float32 [dimensions]. NaN if the vector holds one.
    """
    import numpy as np

    wide = pooled.astype(np.float64)
    stated = np.asarray(golden.vector, dtype=np.float64)
    return float(1 - stated @ wide / (np.linalg.norm(stated) * np.linalg.norm(wide)))


def difference(golden: Golden, pooled: NDArray[np.float32]) -> float:
    """Largest absolute difference between a golden and a text's vector.

    `pooled` is float32 [dimensions], full width; it is shortened and normalized here. Only the
    leading values that the golden states are compared. NaN if the vector holds one.
    """
    import numpy as np

    row = shape(pooled[np.newaxis, :], dimensions=golden.dimensions, normalize=True)[0]
    stated = np.asarray(golden.vector, dtype=np.float64)
    return float(np.max(np.abs(row[: len(stated)].astype(np.float64) - stated)))


def sum_difference(check: SumCheck, vectors: NDArray[np.float32]) -> float:
    """Largest absolute difference of a sum over all dimensions from the published one.

    `vectors` is float32 [n, dimensions], normalized. NaN if one holds a NaN.
    """
    import numpy as np

    sums = vectors.sum(axis=1, dtype=np.float64)
    return float(np.max(np.abs(sums - np.asarray(check.sums, dtype=np.float64))))
