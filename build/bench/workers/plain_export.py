"""Write the plain ONNX export that peers read: torch's own exporter, nothing tuned.

It runs in the environment of sentence-transformers, and stands for the `model.onnx` that model
repositories publish: token states out, no pooling, primitive operators.

    python -m bench.workers.plain_export HF_DIRECTORY OUT.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path


def export(source: str, out: Path) -> None:
    import torch
    from transformers import AutoModel

    model = AutoModel.from_pretrained(source, attn_implementation="eager").eval()
    ids = torch.ones((2, 8), dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]
    axes = {0: "batch", 1: "sequence"}

    class States(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, input_ids, attention_mask, token_type_ids):  # type: ignore[no-untyped-def]
            return self.inner(
                input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
            )[0]

    part = out.with_suffix(".part")
    torch.onnx.export(
        States().eval(),
        (ids, torch.ones_like(ids), torch.zeros_like(ids)),
        str(part),
        input_names=names,
        output_names=["last_hidden_state"],
        dynamic_axes=dict.fromkeys([*names, "last_hidden_state"], axes),
        opset_version=17,
        dynamo=False,
    )
    part.replace(out)


if __name__ == "__main__":
    export(sys.argv[1], Path(sys.argv[2]))
