"""What the workers without a library of their own share: tokenize, batch, pad, pool.

It must stay the plain thing that a careful user writes; cleverness belongs to the engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Ids = list[int]


class Encoder:
    """Token ids of texts, and batches of them."""

    def __init__(self, model: dict[str, Any], *, batch: int, order: str, budget: int) -> None:
        """`order` is `given` or `sorted` (longest first); `budget` tokens end a batch early."""
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(f"{model['hf']}/tokenizer.json")
        self._tokenizer.enable_truncation(model["max_tokens"])
        self._tokenizer.no_padding()
        self._batch, self._order, self._budget = batch, order, budget
        self.pooling: str = model["pooling"]

    def ids(self, texts: Sequence[str]) -> list[Ids]:
        return [found.ids for found in self._tokenizer.encode_batch(list(texts))]

    def batches(self, ids: Sequence[Ids]) -> Iterator[list[int]]:
        """Indices of the texts of each batch."""
        order = list(range(len(ids)))
        if self._order == "sorted":
            order.sort(key=lambda n: -len(ids[n]))
        batch: list[int] = []
        longest = 0
        for index in order:
            longest = max(longest, len(ids[index]))
            full = len(batch) >= self._batch or longest * (len(batch) + 1) > self._budget
            if batch and full:
                yield batch
                batch, longest = [], len(ids[index])
            batch.append(index)
        if batch:
            yield batch


def padded(ids: Sequence[Ids]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids and mask, [batch, longest]."""
    import numpy as np

    longest = max(len(row) for row in ids)
    matrix = np.zeros((len(ids), longest), dtype=np.int64)
    mask = np.zeros_like(matrix)
    for n, row in enumerate(ids):
        matrix[n, : len(row)] = row
        mask[n, : len(row)] = 1
    return matrix, mask


def pooled(states: NDArray[np.float32], mask: NDArray[np.int64], pooling: str) -> Any:
    """Token states [batch, sequence, hidden] to one row a text, as the model's pooling says."""
    import numpy as np

    if pooling == "cls":
        return states[:, 0]
    kept = mask[:, :, None].astype(np.float32)
    return (states * kept).sum(axis=1) / np.maximum(kept.sum(axis=1), 1e-9)
