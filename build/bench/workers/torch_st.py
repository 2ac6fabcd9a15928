"""Worker: sentence-transformers on PyTorch, float32 (the reference of all others) or bfloat16.

It must stay what its users run: `SentenceTransformer.encode` with its own sorting and batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.workers.protocol import Peer, normalized, serve, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.workers.protocol import Vectors


class SentenceTransformers(Peer):
    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        import torch
        from sentence_transformers import (  # type: ignore[import-not-found,unused-ignore]
            SentenceTransformer,
        )

        torch.set_num_threads(threads)
        kind = getattr(torch, options.get("dtype", "float32"))
        self._model = SentenceTransformer(
            model["hf"], device="cpu", model_kwargs={"dtype": kind}, local_files_only=True
        )
        self._model.max_seq_length = model["max_tokens"]
        self._batch = options.get("batch", 32)
        return versions_of("sentence-transformers", "transformers", "torch")

    def encode(self, texts: Sequence[str]) -> Vectors:
        found = self._model.encode(
            list(texts), batch_size=self._batch, convert_to_tensor=True, show_progress_bar=False
        )
        return normalized(found.float().numpy())


if __name__ == "__main__":
    serve(SentenceTransformers())
