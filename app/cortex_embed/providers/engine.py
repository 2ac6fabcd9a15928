"""The ONNX Runtime wrapper: padded token ids in, pooled vectors out.

It runs in worker threads and holds no state between calls; several threads may call `run`
at once on the one session, which shares the weights. It must never decide what is batched
with what, and never upload anything (see `config.prepare_runtime_environment`).
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
    """One ORT session on the CPU execution provider."""

    def __init__(self, model: Path, *, dimensions: int) -> None:
        """Load the graph. Raises ModelFileError."""
        prepare_runtime_environment()
        import onnxruntime as ort

        options = ort.SessionOptions()
        # One thread per run: under load, N runs side by side beat one run on N threads
        # (no barriers), and the caller bounds how many run at once.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        try:
            self._session: Any = ort.InferenceSession(
                str(model), options, providers=["CPUExecutionProvider"]
            )
        except Exception as why:  # the binding's exceptions share no base class
            raise ModelFileError(
                f"onnxruntime {ort.__version__} cannot load {model}: {_first_line(why)}"
            ) from None
        self._check(model, dimensions)

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
        """Token ids of b texts (int64 [length] each) to float32 [b, dimensions], pooled."""
        import numpy as np

        longest = max(len(ids) for ids in batch)
        input_ids = np.zeros((len(batch), longest), dtype=np.int64)
        attention_mask = np.zeros_like(input_ids)
        for row, ids in enumerate(batch):
            input_ids[row, : len(ids)] = ids
            attention_mask[row, : len(ids)] = 1
        feed = {"input_ids": input_ids, "attention_mask": attention_mask}
        vectors: Vectors = self._session.run(None, feed)[0]
        return vectors


def _first_line(why: Exception) -> str:
    return str(why).strip().splitlines()[0] if str(why).strip() else type(why).__name__
