"""Small models of every family besides BERT, made of seeded numbers, in each one's own layout.

As `make_tiny.py` does for BERT: names of tensors and of configuration keys, and the kind of
tokenizer, are what Hugging Face's repositories of that family hold. Geometries have the shape
of a known model, with random weights. The numbers must never change: golden vectors in
tests/data depend on them.

    python build/make_families.py tiny-mpnet DIR
    python build/make_families.py mpnet-geometry DIR --tokenizer PATH
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.errors import EmbedError, ModelFileError
from family_tokenizers import byte_pairs, unigrams, word_pieces
from make_tiny import (
    random_weights,
    tiny_spec,
    tiny_tokenizer,
    tiny_vocabulary,
    uniform,
    write_source,
)
from staging import exit_on_sigterm

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.domain import ModelSpec

    Tensors = dict[str, Any]

_MPNET = {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}
_NOMIC = {
    "embeddings.LayerNorm": "emb_ln",
    "encoder.layer.": "encoder.layers.",
    "attention.output.dense": "attn.out_proj",
    "attention.output.LayerNorm": "norm1",
    "intermediate.dense": "mlp.fc11",
    "output.dense": "mlp.fc2",
    "output.LayerNorm": "norm2",
}
_BUCKETS = 32


@dataclass(frozen=True, slots=True)
class Shape:
    """The numbers that a family's `config.json` is written from; `places` of a text's tokens."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    places: int
    vocabulary: int
    seed: int
    spread: float


def _bert_like(shape: Shape, **own: object) -> dict[str, Any]:
    return {
        "hidden_act": "gelu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "max_position_embeddings": shape.places + 2,
        "vocab_size": shape.vocabulary,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "layer_norm_eps": 1e-5,
        **own,
    }


def _roberta(shape: Shape, kind: str, name: str) -> tuple[dict[str, Any], Tensors]:
    own = {"position_embedding_type": "absolute", "type_vocab_size": 1}
    config = _bert_like(shape, architectures=[name], model_type=kind, **own)
    return config, random_weights(config, shape.seed, shape.spread)


def roberta(shape: Shape) -> tuple[dict[str, Any], Tensors]:
    return _roberta(shape, "roberta", "RobertaModel")


def xlm_roberta(shape: Shape) -> tuple[dict[str, Any], Tensors]:
    return _roberta(shape, "xlm-roberta", "XLMRobertaModel")


def mpnet(shape: Shape) -> tuple[dict[str, Any], Tensors]:
    own = {"model_type": "mpnet", "relative_attention_num_buckets": _BUCKETS}
    config = _bert_like(shape, architectures=["MPNetModel"], **own)
    drawn = random_weights(config | {"type_vocab_size": 1}, shape.seed, shape.spread)
    del drawn["embeddings.token_type_embeddings.weight"]
    tensors = _renamed(drawn, _MPNET)
    name = "encoder.relative_attention_bias.weight"
    tensors[name] = uniform(_stream(shape), 1.0, _BUCKETS, shape.heads)
    return config, tensors


def nomic_bert(shape: Shape) -> tuple[dict[str, Any], Tensors]:
    """The configuration has both sets of names, as the repository's newest revision has."""
    config = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "causal": False,
        "layer_norm_epsilon": 1e-12,
        "mlp_fc1_bias": False,
        "mlp_fc2_bias": False,
        "n_embd": shape.hidden,
        "n_head": shape.heads,
        "n_inner": shape.intermediate,
        "n_layer": shape.layers,
        "n_positions": shape.places,
        "parallel_block": False,
        "prenorm": False,
        "qkv_proj_bias": False,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_emb_interleaved": False,
        "rotary_emb_scale_base": None,
        "rotary_scaling_factor": None,
        "type_vocab_size": 2,
        "use_rms_norm": False,
        "vocab_size": shape.vocabulary,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": shape.places // 4,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "rope_parameters": {"rope_theta": 1000.0, "rope_type": "default"},
        "pad_token_id": 0,
    }
    drawn = random_weights(config, shape.seed, shape.spread)
    del drawn["embeddings.position_embeddings.weight"]
    return config, _nomic_tensors(drawn, shape)


def _nomic_tensors(drawn: Tensors, shape: Shape) -> Tensors:
    import numpy as np

    stream = _stream(shape)
    for index in range(shape.layers):
        layer, bert = f"encoder.layers.{index}", f"encoder.layer.{index}.attention.self"
        parts = [drawn.pop(f"{bert}.{part}.weight") for part in ("query", "key", "value")]
        drawn[f"{layer}.attn.Wqkv.weight"] = np.concatenate(parts)
        drawn[f"{layer}.mlp.fc12.weight"] = uniform(
            stream, shape.spread, shape.intermediate, shape.hidden
        )
    tensors = _renamed(drawn, _NOMIC)
    biased = ("emb_ln.bias", "norm1.bias", "norm2.bias")
    return {n: t for n, t in tensors.items() if not n.endswith(".bias") or n.endswith(biased)}


def _renamed(tensors: Tensors, names: dict[str, str]) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        new = name
        for old, other in names.items():  # the longer of two that fit comes first
            new = new.replace(old, other)
        renamed[new] = tensor
    return renamed


def _stream(shape: Shape) -> Any:
    """For what BERT has not: another stream, so that BERT's numbers stay where they are."""
    import numpy as np

    return np.random.RandomState(shape.seed + 500)


def _bert_tokenizer() -> dict[str, Any]:
    return tiny_tokenizer(tiny_vocabulary())


@dataclass(frozen=True, slots=True)
class Kind:
    """A family as this script makes it: its layout, tokenizer, and the seed of the tiny one."""

    make: Callable[[Shape], tuple[dict[str, Any], Tensors]]
    tokenizer: Callable[[], dict[str, Any]]
    seed: int
    like: str
    """The known model whose shape the geometry has."""


KINDS = {
    "roberta": Kind(roberta, byte_pairs, 21_001, "microsoft/codebert-base"),
    "xlm-roberta": Kind(xlm_roberta, unigrams, 22_001, "intfloat/multilingual-e5-base"),
    "mpnet": Kind(mpnet, word_pieces, 23_001, "sentence-transformers/all-mpnet-base-v2"),
    "nomic-bert": Kind(nomic_bert, _bert_tokenizer, 24_001, "nomic-ai/nomic-embed-text-v1.5"),
}


def _tiny(
    family: str, pooling: Literal["cls", "mean", "last_token"], suffix: str = ""
) -> ModelSpec:
    name = f"tiny-{family}{suffix}"
    return replace(
        tiny_spec("mean"), id=name, repo=f"cortex-embed/{name}", family=family, pooling=pooling
    )


TINY = {
    spec.id: spec
    for spec in (
        replace(_tiny("xlm-roberta", "mean"), query_prefix="query: ", document_prefix="passage: "),
        _tiny("roberta", "last_token"),
        _tiny("mpnet", "mean"),
        _tiny("mpnet", "cls", "-cls"),
        _tiny("nomic-bert", "mean"),
        _tiny("nomic-bert", "cls", "-cls"),
    )
}
"""32 dimensions, 48 tokens of 64 places. CLS again where a family's last layer is special."""

GEOMETRIES = {
    f"{family}-geometry": replace(
        _tiny(family, "mean"),
        id=f"{family}-geometry",
        repo=f"cortex-embed/{family}-geometry",
        dimensions=768,
        max_tokens=1024 if family == "nomic-bert" else 512,
        matryoshka=(),
    )
    for family in ("xlm-roberta", "mpnet", "nomic-bert")
}
"""12 layers of 768, 12 heads. RoBERTa's is XLM-RoBERTa's, so it is not made again."""


def make_family(out: Path, model_id: str) -> Path:
    """Write the source files of a tiny model (see TINY) into `out` and return it."""
    kind = KINDS[TINY[model_id].family]
    tokenizer = kind.tokenizer()
    # nomic-embed-text pads its vocabulary to a multiple of 64; a row too many for all.
    rows = (largest_id(tokenizer) // 64 + 1) * 64
    shape = Shape(
        layers=2, hidden=32, heads=4, intermediate=64, places=64, vocabulary=rows,
        seed=kind.seed, spread=0.25,
    )  # fmt: skip
    config, tensors = kind.make(shape)
    return write_source(out, config, tensors, tokenizer)


def make_family_geometry(out: Path, model_id: str, tokenizer: Path) -> Path:
    """Write random weights in the shape of a known model into `out` (see GEOMETRIES)."""
    family = GEOMETRIES[model_id].family
    shape = Shape(
        layers=12, hidden=768, heads=12, intermediate=3072,
        places=8192 if family == "nomic-bert" else 512, vocabulary=30_528,
        seed=KINDS[family].seed + 1, spread=0.04,
    )  # fmt: skip
    try:
        parsed = json.loads(tokenizer.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise ModelFileError(
            f"{tokenizer} cannot be read: {why}. Give the tokenizer.json of all-minilm-l6-v2."
        ) from None
    config, tensors = KINDS[family].make(shape)
    return write_source(out, config, tensors, parsed)


def largest_id(tokenizer: dict[str, Any]) -> int:
    """The largest id that a `tokenizer.json` gives."""
    vocab = tokenizer["model"]["vocab"]
    ids = [*(range(len(vocab)) if isinstance(vocab, list) else vocab.values())]
    ids += [token["id"] for token in tokenizer["added_tokens"]]
    return int(max(ids))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the source files of a seeded model.")
    parser.add_argument("model", choices=[*TINY, *GEOMETRIES])
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--tokenizer", type=Path, metavar="PATH", help="for a geometry")
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        if args.model in TINY:
            make_family(args.out, args.model)
        elif args.tokenizer is None:
            parser.error("a geometry needs --tokenizer PATH")
        else:
            make_family_geometry(args.out, args.model, args.tokenizer)
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    print(f"Made {args.model} in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
