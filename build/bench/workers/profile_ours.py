"""Worker: the native engine with its kernels' own clock on, to see where the time goes.

It never gives a headline figure: it is the engine without service and HTTP. It says which share
of the time every phase of a run takes, and the rate that the linear layers alone reach.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.workers.protocol import Peer, serve, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from bench.workers.protocol import Vectors
    from cortex_embed.kernels.binding import Shape

    Ids = NDArray[np.int64]

_LINEAR = ("qkv", "output", "up", "down")
"""The phases of linear layers. The GELU is in `up`, what is added back in `output` and `down`."""
_REPEATS = 3


class Profiled(Peer):
    """Tokenizer, micro-batcher and engine as the local provider puts them together."""

    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        from cortex_embed import kernels
        from cortex_embed.models.artifact import load_artifact
        from cortex_embed.providers.engines import shape_of
        from cortex_embed.providers.native_engine import NativeEngine
        from cortex_embed.providers.tokenizer import Tokenizer

        artifact = load_artifact(Path(model["artifact"]))
        precision = options["precision"]
        best = kernels.load(kernels.best(precision))
        self._engine = NativeEngine(
            artifact.graph_for(precision),
            dimensions=artifact.spec.dimensions,
            kernels=best,
            in_int16=precision == "int16",
        )
        self._ticks = self._engine.count_ticks()
        self._tokenizer = Tokenizer(artifact.tokenizer, max_tokens=artifact.spec.max_tokens)
        self._shape = shape_of(artifact, precision)
        self._dimensions = artifact.spec.dimensions
        self._instruction_set = best.name
        self._threads = threads
        self._seconds: list[float] = []
        self._flops: list[float] = []
        return versions_of("numpy")

    def encode(self, texts: Sequence[str]) -> Vectors:
        ids = [e.ids for e in self._tokenizer.encode(texts, prefix="", truncate="end")]
        return asyncio.run(self._encode(ids))

    async def _encode(self, ids: list[Ids]) -> Vectors:
        from cortex_embed.config import Settings
        from cortex_embed.providers.batcher import MicroBatcher

        defaults = Settings()
        batcher = MicroBatcher(
            self._timed,
            dimensions=self._dimensions,
            workers=self._threads,
            padded=self._engine.PADS,
            max_batch_tokens=defaults.max_batch_tokens,
            max_queue_tokens=defaults.max_queue_tokens,
        )
        try:
            return (await batcher.embed(ids, priority="bulk")).vectors
        finally:
            await batcher.close()

    def _timed(self, batch: list[Ids]) -> Vectors:
        started = time.perf_counter()
        vectors = self._engine.run(batch)
        self._seconds.append(time.perf_counter() - started)
        self._flops.append(linear_flops(self._shape, sum(map(len, batch)), len(batch)))
        return vectors

    def profile(self, texts: str) -> dict[str, Any]:
        """Seconds and share of every phase, and GFLOP/s of the linear layers on all threads.

        Runs go side by side on one thread each, so seconds are those of threads, and the whole
        machine's rate is `threads` times that of one. Raises RuntimeError where the processor
        has no counter that the kernels read.
        """
        chosen = json.loads(Path(texts).read_text(encoding="utf-8"))
        self.encode(chosen)  # a warm-up
        self._ticks.fill(0)
        self._seconds.clear()
        self._flops.clear()
        for _ in range(_REPEATS):
            self.encode(chosen)
        found = phases(self._ticks, sum(self._seconds))
        linear = sum(found[name]["seconds"] for name in _LINEAR)
        return {
            "instruction_set": self._instruction_set,
            "phases": found,
            "linear_gflops": sum(self._flops) / linear / 1e9 * self._threads,
            "linear_share_of_time": linear / sum(self._seconds),
        }


def phases(ticks: NDArray[np.uint64], seconds: float) -> dict[str, dict[str, float]]:
    """`seconds` shared out over the phases as `ticks` (uint64 [PHASES]) are.

    Raises RuntimeError for ticks that were not counted.
    """
    from cortex_embed.kernels import PHASES

    total = int(ticks.sum())
    if not total:
        raise RuntimeError("the kernels count no time on this processor: only x86 has the counter")
    shares = {name: int(count) / total for name, count in zip(PHASES, ticks, strict=True)}
    return {name: {"seconds": share * seconds, "share": share} for name, share in shares.items()}


def linear_flops(shape: Shape, tokens: int, texts: int) -> float:
    """Multiply-adds x 2 in the linear layers of one run, those alone that are done: with CLS
    pooling, all but keys and values of the last layer is for each text's first token only."""
    from cortex_embed.kernels import POOLINGS

    layers, hidden, inner = int(shape.layers), int(shape.hidden), int(shape.intermediate)
    read = 2.0 * 2 * hidden * hidden  # keys and values
    rest = 2.0 * (2 * hidden * hidden + 2 * hidden * inner)
    last = texts if POOLINGS[shape.pooling] == "cls" else tokens
    return layers * read * tokens + rest * ((layers - 1) * tokens + last)


if __name__ == "__main__":
    serve(Profiled())
