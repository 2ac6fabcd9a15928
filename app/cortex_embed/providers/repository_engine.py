"""The ONNX Runtime wrapper for a graph that is not ours: it pools where the graph does not.

One session with all threads, whatever comes: it loads the weights into memory, and a second one
would load them again. It must never read an output that is not certain to be the embedding
(`layout` decides).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError
from cortex_embed.providers.engine import make_session
from cortex_embed.providers.layout import Layout, Pooling, Port, introspect

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]


class RepositoryEngine:
    """Does what `Engine` does, for any encoder of token ids."""

    PADS = True
    queue = None
    """Its runs need the interpreter."""
    enough_tokens = 0
    """See `NativeEngine`: nobody has measured it for these."""

    def __init__(
        self,
        model: Path,
        *,
        dimensions: int,
        pooling: Pooling,
        threads: int = 1,
        late_positions: bool = False,
    ) -> None:
        """Load the graph and find out its layout (see `introspect`). Raises ModelFileError."""
        self._model = model
        self._dimensions = dimensions
        self._session = make_session(model, threads, optimize=True)
        self.layout: Layout = introspect(
            model,
            [Port(i.name, i.type, tuple(i.shape)) for i in self._session.get_inputs()],
            [Port(o.name, o.type, tuple(o.shape)) for o in self._session.get_outputs()],
            dimensions=dimensions,
            pooling=pooling,
            late_positions=late_positions,
        )

    def widen(self) -> None:
        """The one session has all threads already."""

    def run(self, batch: Sequence[Ids]) -> Vectors:
        """Token ids of b texts (int64 [length] each) to float32 [b, dimensions], pooled.

        Raises ModelFileError where the graph's output is of another width than the model's.
        """
        (output,) = self._session.run([self.layout.output], self.layout.feed(batch))
        if output.shape[-1] != self._dimensions:
            raise ModelFileError(
                f"{self._model} gives {output.shape[-1]} dimensions, not {self._dimensions}."
            )
        return self.layout.pool(output, batch)

    run_alone = run

    def trim(self) -> None:
        """Nothing: the memory of runs is the session's own until it ends."""

    def close(self) -> None:
        """Nothing: the threads end with the session."""
