"""The ONNX Runtime wrapper: padded token ids in, pooled vectors (or token states) out.

It runs in worker threads and holds no state between calls; several threads may call `run`
at once on the one session, which shares the weights. It must never decide what is batched
with what, and never upload anything (see `environment.prepare_runtime_environment`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cortex_embed.config import prepare_runtime_environment
from cortex_embed.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]


class Engine:
    """ORT sessions of one graph on the CPU execution provider.

    One session runs a micro-batch on the calling thread, for N callers at once: N runs side by
    side beat one run on N threads, which meet at a barrier after every operator. With
    `threads` over 1 a second session gives a text that is alone all of them. Both map the
    same weights file.
    """

    PADS = True
    """Every text of a run costs as much as its longest."""
    queue = None
    """Its runs need the interpreter."""
    enough_tokens = 0
    """See `NativeEngine`: nobody has measured it for these."""

    def __init__(
        self, model: Path, *, dimensions: int, threads: int = 1, prepack: bool = True
    ) -> None:
        """Load the graph. Raises ModelFileError.

        Without `prepack` it runs a tenth slower and keeps no copy of the float32 weights of its
        own (measured: 41 MB of MiniLM's 90): for a graph that is rarely run.
        """
        self._model = model
        self._threads = threads
        self._session = make_session(model, 1, prepack=prepack)
        self._alone = self._session
        self._check(model, dimensions)

    def widen(self) -> None:
        """Make the session with all threads, for a text alone. Raises ModelFileError.

        Not part of loading: until it is there such a text takes one thread, and gets its vector
        that much sooner after a start.
        """
        if self._threads > 1 and self._alone is self._session:
            self._alone = make_session(self._model, self._threads)

    def _check(self, model: Path, dimensions: int) -> None:
        inputs = {i.name for i in self._session.get_inputs()}
        output = self._session.get_outputs()[0]
        if inputs != {"input_ids", "attention_mask"} or output.shape[-1] != dimensions:
            raise ModelFileError(
                f"{model} has inputs {sorted(inputs)} and an output of shape {output.shape}; "
                f"expected input_ids, attention_mask and [batch, {dimensions}]. "
                "Export it again with build/export_onnx.py."
            )

    def run(self, batch: Sequence[Ids]) -> Vectors:
        """Token ids of b texts (int64 [length] each) to float32 [b, dimensions], pooled; from a
        graph of token states, to float32 [b, longest, dimensions], padding included."""
        vectors: Vectors = self._session.run(None, padded(batch))[0]
        return vectors

    def run_alone(self, batch: Sequence[Ids]) -> Vectors:
        """The same on all threads: for when nothing else is to be done."""
        vectors: Vectors = self._alone.run(None, padded(batch))[0]
        return vectors

    def trim(self) -> None:
        """Nothing: the memory of runs is the session's own until it ends."""

    def close(self) -> None:
        """Nothing: the threads end with the session."""


def padded(batch: Sequence[Ids]) -> dict[str, Ids]:
    """The graph's inputs, int64 [b, longest], padded on the right with zeros."""
    import numpy as np

    longest = max(len(ids) for ids in batch)
    input_ids = np.zeros((len(batch), longest), dtype=np.int64)
    attention_mask = np.zeros_like(input_ids)
    for row, ids in enumerate(batch):
        input_ids[row, : len(ids)] = ids
        attention_mask[row, : len(ids)] = 1
    return {"input_ids": input_ids, "attention_mask": attention_mask}


def newest_opset() -> int:
    """The newest opset whose operators the installed onnxruntime has in full.

    1.23 loads no opset-24 graph and has gaps in opset 23 (tried); 1.31 reads 24.
    """
    prepare_runtime_environment()
    import onnxruntime as ort

    major, minor = (int(part) for part in ort.__version__.split(".")[:2])
    return 24 if (major, minor) >= (1, 31) else 22


def make_session(model: Path, threads: int, *, prepack: bool = True, optimize: bool = False) -> Any:
    """An ORT session of one graph. Raises ModelFileError.

    `optimize` is for graphs of others: ours are stored as they are to run.
    """
    prepare_runtime_environment()
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Our graph is stored as it is to run: a start does no graph work, and no fusion brings
    # back an operator that was avoided on purpose.
    level = ort.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimize else level.ORT_DISABLE_ALL
    # Threads may wait for each other inside a run, never between runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if threads > 1 else "0")
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", "0" if prepack else "1")
    try:
        return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    except Exception as why:  # the binding's exceptions share no base class
        raise ModelFileError(
            f"onnxruntime {ort.__version__} cannot load {model}: {_first_line(why)}"
        ) from None


def _first_line(why: Exception) -> str:
    return str(why).strip().splitlines()[0] if str(why).strip() else type(why).__name__
