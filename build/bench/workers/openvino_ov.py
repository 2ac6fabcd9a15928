"""Worker: OpenVINO on the plain export, f32 or bf16, one request or several streams.

`streams` > 1 is OpenVINO's own throughput mode fed with small sorted batches: the tuning that
our engine has, so that the comparison is not with a peer as shipped only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.workers.encoding import Encoder, padded, pooled
from bench.workers.protocol import Peer, normalized, serve, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.workers.protocol import Vectors


class OpenVino(Peer):
    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        import openvino as ov  # type: ignore[import-not-found,unused-ignore]

        streams = options.get("streams", 1)
        core = ov.Core()
        graph = core.read_model(model["onnx"])
        self._model = core.compile_model(
            graph,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": options["precision"],
                "INFERENCE_NUM_THREADS": threads,
                "NUM_STREAMS": streams,
            },
        )
        self._inputs = {i.any_name for i in self._model.inputs}
        self._queue = ov.AsyncInferQueue(self._model, streams)
        self._queue.set_callback(self._keep)
        self._encoder = Encoder(
            model,
            batch=options.get("batch", 32),
            order="sorted",
            budget=options.get("budget", 1 << 30),
        )
        self._rows: list[Any] = []
        return versions_of("openvino")

    def _keep(self, request: Any, given: Any) -> None:
        batch, mask = given
        states = pooled(request.get_output_tensor(0).data, mask, self._encoder.pooling)
        for n, row in zip(batch, states, strict=True):
            self._rows[n] = row.copy()

    def encode(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        ids = self._encoder.ids(texts)
        self._rows = [None] * len(texts)
        for batch in self._encoder.batches(ids):
            matrix, mask = padded([ids[n] for n in batch])
            offered = {
                "input_ids": matrix,
                "attention_mask": mask,
                "token_type_ids": np.zeros_like(matrix),
            }
            feed = {name: offered[name] for name in self._inputs}
            self._queue.start_async(feed, (batch, mask))
        self._queue.wait_all()
        return normalized(np.stack(self._rows))


if __name__ == "__main__":
    serve(OpenVino())
