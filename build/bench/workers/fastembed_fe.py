"""Worker: fastembed with the same weights as everyone (its own loader, pooling and batches)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.workers.protocol import Peer, normalized, serve, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.workers.protocol import Vectors

_NAME = "bench/local"


class FastEmbed(Peer):
    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        from fastembed import TextEmbedding  # type: ignore[import-not-found,unused-ignore]
        from fastembed.common.model_description import (  # type: ignore[import-not-found,unused-ignore]
            ModelSource,
            PoolingType,
        )

        TextEmbedding.add_custom_model(
            model=_NAME,
            pooling=PoolingType.CLS if model["pooling"] == "cls" else PoolingType.MEAN,
            normalization=True,
            sources=ModelSource(hf=_NAME),
            dim=model["dimensions"],
            model_file="model.onnx",
        )
        self._model = TextEmbedding(
            _NAME, threads=threads, specific_model_path=model["plain"], local_files_only=True
        )
        self._batch = options.get("batch", 256)
        return versions_of("fastembed", "onnxruntime")

    def encode(self, texts: Sequence[str]) -> Vectors:
        import numpy as np

        return normalized(np.stack(list(self._model.embed(list(texts), batch_size=self._batch))))


if __name__ == "__main__":
    serve(FastEmbed())
