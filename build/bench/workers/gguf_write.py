"""Write a float32 GGUF file from the same safetensors as everyone's, for llama.cpp.

No hub and no converter script is needed: a BERT has few kinds of tensors. It must never lower
the precision: a float32 peer is compared with our float32.

    python -m bench.workers.gguf_write HF_DIRECTORY OUT.gguf POOLING
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

_SPECIAL = {"[PAD]": 3, "[UNK]": 2, "[CLS]": 3, "[SEP]": 3, "[MASK]": 3}
_UNUSED = 5
_NORMAL = 1
_MEAN, _CLS = 1, 2


def write(source: Path, out: Path, pooling: str) -> None:
    """Metadata, vocabulary, tensors. Raises ValueError for a tensor llama.cpp has no name for."""
    import gguf  # type: ignore[import-not-found,unused-ignore]
    from safetensors.numpy import load_file

    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    part = out.with_suffix(".part")
    writer = gguf.GGUFWriter(str(part), "bert")
    writer.add_name(source.parent.name)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType(_CLS if pooling == "cls" else _MEAN))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _vocabulary(writer, source)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, config["num_hidden_layers"])
    for full, values in load_file(str(source / "model.safetensors")).items():
        name = full.removeprefix("bert.")
        if name.startswith("pooler.") or name.endswith("position_ids"):
            continue
        found = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if found is None:
            raise ValueError(f"llama.cpp has no name for the tensor {name}")
        writer.add_tensor(found, values.astype("float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(out)


def _vocabulary(writer: Any, source: Path) -> None:
    """WordPiece as llama.cpp spells it: word starts carry U+2581, continuations nothing."""
    parsed = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = parsed["model"]["vocab"]
    tokens, kinds = [], []
    for text, _ in sorted(vocabulary.items(), key=lambda item: item[1]):
        if text.startswith("[") and text.endswith("]"):
            tokens.append(text)
            kinds.append(_SPECIAL.get(text, _UNUSED if "unused" in text else _NORMAL))
        else:
            tokens.append(text[2:] if text.startswith("##") else "\u2581" + text)
            kinds.append(_NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_type_count(2)
    writer.add_unk_token_id(vocabulary["[UNK]"])
    writer.add_sep_token_id(vocabulary["[SEP]"])
    writer.add_pad_token_id(vocabulary["[PAD]"])
    writer.add_bos_token_id(vocabulary["[CLS]"])
    writer.add_mask_token_id(vocabulary["[MASK]"])


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
