"""The states of single tokens, for callers who pool by themselves.

Few ask for them. So the session is made when somebody first does, it keeps no copy of the
weights, and it has one thread beside those that embed: an embedding may become a little slower
by it, but never waits for it. This module must never pool, and never know what a token is.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from cortex_embed.errors import EngineError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.providers.engine import Engine
    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]

MAX_TOKENS = 16_384
"""Tokens of one request: 25 MB of states with 384 dimensions, and 70 MB of JSON. It is what
text-embeddings-inference puts into one batch at most."""
_MAX_WAITING = 4 * MAX_TOKENS
"""Tokens of all requests that wait."""


class TokenStateRunner:
    """One graph of token states on one thread. Create it anywhere; nothing is loaded yet."""

    def __init__(
        self, find_graph: Callable[[], Path], *, dimensions: int, max_batch_tokens: int
    ) -> None:
        """`find_graph` is asked once somebody wants states: which graph the runtime reads, it
        says when it is loaded. It may raise an EmbedError."""
        self._find_graph = find_graph
        self._dimensions = dimensions
        self._max_batch_tokens = max_batch_tokens
        self._engine: Engine | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="states")
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def run(self, texts: Sequence[Ids]) -> tuple[Vectors, ...]:
        """Token ids of each text to its states, float32 [length, dimensions].

        One request after the other, each in runs within the token budget: so the states of only
        one grow at a time. Raises OverloadedError, EngineError.
        """
        tokens = sum(map(len, texts))
        if self._waiting and self._waiting + tokens > _MAX_WAITING:
            raise OverloadedError(
                f"{self._waiting} tokens wait for their states; the limit is {_MAX_WAITING}. "
                "Try again shortly, or send fewer texts."
            )
        self._waiting += tokens
        try:
            async with self._turn:
                return await self._compute(texts)
        finally:
            self._waiting -= tokens

    async def _compute(self, texts: Sequence[Ids]) -> tuple[Vectors, ...]:
        loop = asyncio.get_running_loop()
        states: dict[int, Vectors] = {}
        for indices in batches([len(ids) for ids in texts], self._max_batch_tokens):
            batch = [texts[index] for index in indices]
            padded = await loop.run_in_executor(self._pool, self._run, batch)
            states |= {
                index: rows[: len(ids)]
                for index, ids, rows in zip(indices, batch, padded, strict=True)
            }
        return tuple(states[index] for index in range(len(texts)))

    def _run(self, batch: list[Ids]) -> Vectors:
        """Float32 [b, longest, dimensions]. There is one thread, hence one session is made."""
        from cortex_embed.providers.engine import Engine

        graph = self._find_graph() if self._engine is None else None
        try:
            if graph is not None:
                self._engine = Engine(graph, dimensions=self._dimensions, prepack=False)
            assert self._engine is not None  # noqa: S101 - made above; this is for mypy
            states = self._engine.run(batch)
        except Exception as why:  # the binding's exceptions share no base class
            # Not its words: they name paths of this machine.
            raise EngineError("The runtime failed to compute token states.") from why
        expected = (len(batch), max(map(len, batch)), self._dimensions)
        if states.shape != expected:
            raise EngineError(f"Token states of shape {states.shape} came for {expected}.")
        return states

    async def close(self) -> None:
        """Finish what waits, then stop the thread."""
        async with self._turn:  # it is fair: whoever waited before us has had it
            # A run whose request was cancelled may still be under way.
            await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        self._engine = None


def batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Indices of texts that run together, the longest first. Their padded size, longest x count,
    stays within `budget` unless one text alone exceeds it."""
    made: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        if made and lengths[made[-1][0]] * (len(made[-1]) + 1) <= budget:
            made[-1].append(index)
        else:
            made.append([index])
    return made
