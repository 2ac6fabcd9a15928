"""Worker: ONNX Runtime as a careful user calls it, on the plain export or on our own graph.

One session with all threads, batches of 32 in the order given. It must set nothing that the
peer's documentation does not tell its users to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.workers.encoding import Encoder, padded, pooled
from bench.workers.protocol import Peer, normalized, serve, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.workers.protocol import Vectors


class OnnxRuntime(Peer):
    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        import onnxruntime as ort

        own = ort.SessionOptions()
        own.intra_op_num_threads = threads
        own.log_severity_level = 3
        graph = f"{model['artifact']}/model.onnx" if options["graph"] == "ours" else model["onnx"]
        self._session: Any = ort.InferenceSession(graph, own, providers=["CPUExecutionProvider"])
        self._inputs = {i.name for i in self._session.get_inputs()}
        self._encoder = Encoder(
            model,
            batch=options.get("batch", 32),
            order=options.get("order", "given"),
            budget=options.get("budget", 1 << 30),
        )
        return versions_of("onnxruntime")

    def encode(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        ids = self._encoder.ids(texts)
        rows: list[Any] = [None] * len(texts)
        for batch in self._encoder.batches(ids):
            matrix, mask = padded([ids[n] for n in batch])
            offered = {
                "input_ids": matrix,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(matrix),
            }
            feed = {name: offered[name] for name in self._inputs}
            states = self._session.run(None, feed)[0]
            if states.ndim == 3:
                states = pooled(states, mask, self._encoder.pooling)
            for n, row in zip(batch, states, strict=True):
                rows[n] = row
        return normalized(np.stack(rows))


if __name__ == "__main__":
    serve(OnnxRuntime())
