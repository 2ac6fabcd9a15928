"""Small models made of seeded numbers, in Hugging Face's layout, for tests without weights.

`tiny-cls` and `tiny-mean` are complete encoders of 32 dimensions; `bge-geometry` has the shape
of BGE-small-en-v1.5, whose real weights a machine without the hub cannot get. Every term of an
encoder (biases, token types, LayerNorm scales) is far from zero, so that leaving one out shows.
The numbers must never change: golden vectors in tests/data depend on them.

    python build/make_tiny.py cls|mean DIR
    python build/make_tiny.py geometry DIR --tokenizer PATH
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from msgspec.structs import replace

from bert_graph import STATES, build_graph
from bert_source import read_config, read_weights
from bert_weights import encoder
from cortex_embed.domain import ModelSpec
from cortex_embed.errors import EmbedError, ModelFileError, UsageError
from cortex_embed.models.catalogue import find
from staging import exit_on_sigterm, staging

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from cortex_embed.models.catalogue import CatalogueEntry

TinyPooling = Literal["cls", "mean"]
GEOMETRY_ID = "bge-geometry"
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_EXOTIC = "äßéλжש世界🙂"
_ENDINGS = "ing ed er est ly tion ness ment able less ful ous ive al ic ity ism ist ize ized"
_WORDS = """
the of and to in a is that it was for on are as with his they at be this from have or by one had
not but what all were when we there can an your which their said if do will each about how up out
them then she many some so these would other into has more her two like him see time could no make
than first been its who now people my made over did down only way find use may water long little
very after words called just where most know get through back much before go good new write our
used me man too any day same right look think also around another came come work three word must
because does part even place well such here take why things help put years different away again
off went old number great tell men say small every found still between name should home big give
air line set own under read last never us left end along while might next sound below saw something
thought both few those always looked show large often together asked house world going want school
important until form food keep children feet land side without boy once animals life enough took
vector text search query passage document model embed hello cat dog sat mat quick brown fox jumps
lazy deep learning capital france share language neighbours books across
"""


def tiny_spec(pooling: TinyPooling) -> ModelSpec:
    """What a tiny model is. The two differ in every field that a pipeline could mix up."""
    cls = ModelSpec(
        id="tiny-cls",
        repo="cortex-embed/tiny-cls",
        revision="1",
        family="bert",
        pooling="cls",
        normalize=True,
        dimensions=32,
        max_tokens=64,
        query_prefix="query: ",
        document_prefix="passage: ",
        licence="mit",
        aliases=("tiny",),
        matryoshka=(8, 16),
    )
    if pooling == "cls":
        return cls
    return replace(
        cls,
        id="tiny-mean",
        repo="cortex-embed/tiny-mean",
        pooling="mean",
        max_tokens=48,  # below the 64 positions, as MiniLM's 256 is below its 512
        query_prefix="",
        document_prefix="",
        aliases=(),
        matryoshka=(),
    )


def kernel_spec(pooling: TinyPooling) -> ModelSpec:
    """A tiny model of the least shape that the native kernels run."""
    name = f"tiny-kernel-{pooling}"
    return replace(
        tiny_spec(pooling),
        id=name,
        repo=f"cortex-embed/{name}",
        dimensions=64,
        aliases=(),
        matryoshka=(),
    )


def geometry_spec(like: str = "bge-small-en-v1.5") -> ModelSpec:
    """The spec of a catalogue model under another name: random weights must not pass for it."""
    return replace(
        _known(like).spec,
        id=GEOMETRY_ID,
        repo=f"cortex-embed/{GEOMETRY_ID}",
        revision="1",
        aliases=(),
    )


def _known(model_id: str) -> CatalogueEntry:
    entry = find(model_id)
    if entry is None:
        raise UsageError(f"There is no model named {model_id!r} in the catalogue.")
    return entry


def make_tiny(out: Path, pooling: TinyPooling) -> Path:
    """Write the source files of a tiny model into `out` and return it."""
    vocabulary = tiny_vocabulary()
    config = _config(layers=2, hidden=32, heads=4, intermediate=64, positions=64)
    config["vocab_size"] = len(vocabulary)
    seed = {"cls": 20_001, "mean": 20_002}[pooling]
    return _write(out, config, seed, spread=0.25, tokenizer=tiny_tokenizer(vocabulary))


def make_kernel_sized(out: Path, pooling: TinyPooling) -> Path:
    """Write the source files of `kernel_spec`'s model into `out` and return it."""
    vocabulary = tiny_vocabulary()
    config = _config(layers=2, hidden=64, heads=2, intermediate=128, positions=64)
    config["vocab_size"] = len(vocabulary)
    seed = {"cls": 40_001, "mean": 40_002}[pooling]
    return _write(out, config, seed, spread=0.18, tokenizer=tiny_tokenizer(vocabulary))


def make_repository(out: Path, pooling: TinyPooling) -> Path:
    """Write the same tiny model into `out` as its authors would publish it; return it.

    sentence-transformers' files, and an ONNX graph of theirs: weights inside, token types as an
    input, and beside the token states the pooler's output, which is no embedding.
    """
    spec = tiny_spec(pooling)
    make_tiny(out, pooling)
    modules = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    mode = {"cls": "cls_token", "mean": "mean_tokens"}[pooling]
    documents: dict[str, dict[str, Any] | list[dict[str, Any]]] = {
        "modules.json": [
            {
                "idx": at,
                "name": str(at),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for at, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": spec.dimensions,
            f"pooling_mode_{mode}": True,
        },
        "sentence_bert_config.json": {"max_seq_length": spec.max_tokens},
        "config_sentence_transformers.json": {
            "prompts": {"query": spec.query_prefix, "document": spec.document_prefix}
        },
    }
    for name, document in documents.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(json.dumps(document, indent=2), encoding="utf-8")
    (out / "onnx").mkdir(exist_ok=True)
    graph = _published_graph(out, spec)
    (out / "onnx" / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    return out


def _published_graph(source: Path, spec: ModelSpec) -> ModelProto:
    """What Optimum's export of a BertModel takes and gives. The token types change nothing."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    config = read_config(source / "config.json", spec)
    blocks = encoder(read_weights(source / "model.safetensors"), config)
    model = build_graph(blocks, config, spec.pooling, compatible=True, tokens=True)
    graph, states, width = model.graph, "last_hidden_state", config.hidden
    for node in graph.node:
        node.output[:] = [states if name == STATES else name for name in node.output]
    graph.output[0].name = states
    ids = ["batch", "sequence"]
    graph.input.append(helper.make_tensor_value_info("token_type_ids", TensorProto.INT64, ids))
    numbers = np.random.RandomState(20_003)
    pooler = {
        "first_token": np.array(0, dtype=np.int64),
        "pooler.weight": uniform(numbers, 0.25, width, width),
        "pooler.bias": uniform(numbers, 0.1, width),
    }
    graph.initializer.extend(numpy_helper.from_array(v, name) for name, v in pooler.items())
    first, weight, bias = pooler
    graph.node.extend(
        [
            helper.make_node("Gather", [states, first], ["first_states"], axis=1),
            helper.make_node("Gemm", ["first_states", weight, bias], ["pooler_linear"]),
            helper.make_node("Tanh", ["pooler_linear"], ["pooler_output"]),
        ]
    )
    shape = ["batch", width]
    graph.output.append(helper.make_tensor_value_info("pooler_output", TensorProto.FLOAT, shape))
    return model


def make_geometry(out: Path, tokenizer: Path, like: str = "bge-small-en-v1.5") -> Path:
    """Write random weights in the shape of `like` into `out`, with the given tokenizer.json."""
    entry = _known(like)
    config = _config(
        layers=entry.layers, hidden=entry.hidden, heads=12, intermediate=1536, positions=512
    )
    config["vocab_size"] = 30_522
    try:
        parsed = json.loads(tokenizer.read_text(encoding="utf-8"))
    except (OSError, ValueError) as why:
        raise ModelFileError(
            f"{tokenizer} cannot be read: {why}. Give the tokenizer.json of all-minilm-l6-v2."
        ) from None
    return _write(out, config, 30_001, spread=0.06, tokenizer=parsed)


def random_weights(config: dict[str, Any], seed: int, spread: float) -> dict[str, Any]:
    """Every tensor of a BertModel by its name, float32.

    `spread` is the standard deviation of the linear weights. Numbers are uniform: they come
    from the generator by exact arithmetic alone, so that every platform makes the same bytes
    (a normal distribution would go through the platform's logarithm).
    """
    import numpy as np

    stream = np.random.RandomState(seed)  # legacy on purpose: its stream is frozen for ever

    def draw(deviation: float, *shape: int, around: float = 0.0) -> NDArray[np.float32]:
        return uniform(stream, deviation, *shape, around=around)

    def norm(name: str) -> dict[str, NDArray[np.float32]]:
        return {
            f"{name}.LayerNorm.weight": draw(0.2, hidden, around=1.0),
            f"{name}.LayerNorm.bias": draw(0.1, hidden),
        }

    def dense(name: str, outputs: int, inputs: int) -> dict[str, NDArray[np.float32]]:
        return {
            f"{name}.weight": draw(spread, outputs, inputs),
            f"{name}.bias": draw(0.1, outputs),
        }

    hidden, wide = config["hidden_size"], config["intermediate_size"]
    tensors = {
        "embeddings.word_embeddings.weight": draw(0.05, config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": draw(
            0.03, config["max_position_embeddings"], hidden
        ),
        "embeddings.token_type_embeddings.weight": draw(0.03, config["type_vocab_size"], hidden),
        **norm("embeddings"),
    }
    for index in range(config["num_hidden_layers"]):
        layer = f"encoder.layer.{index}"
        for part in ("query", "key", "value"):
            tensors |= dense(f"{layer}.attention.self.{part}", hidden, hidden)
        tensors |= dense(f"{layer}.attention.output.dense", hidden, hidden)
        tensors |= norm(f"{layer}.attention.output")
        tensors |= dense(f"{layer}.intermediate.dense", wide, hidden)
        tensors |= dense(f"{layer}.output.dense", hidden, wide)
        tensors |= norm(f"{layer}.output")
    return tensors


def uniform(
    stream: np.random.RandomState, deviation: float, *shape: int, around: float = 0.0
) -> NDArray[np.float32]:
    """Numbers of that standard deviation, by exact arithmetic alone."""
    import numpy as np

    between = stream.random_sample(shape) - 0.5
    return (between * (deviation * math.sqrt(12.0)) + around).astype(np.float32)


def tiny_vocabulary() -> list[str]:
    """About 500 WordPiece tokens; the place in the list is the id."""
    vowels, consonants = "aeiou", "bcdfghklmnprstvw"
    pieces = [*_ALPHABET, *_ENDINGS.split()]
    pieces += [c + v for c in consonants for v in vowels]
    tokens = [*_SPECIAL, *_PUNCTUATION, *_ALPHABET, *_EXOTIC, *_WORDS.split()]
    tokens += ["##" + piece for piece in pieces]
    return list(dict.fromkeys(tokens))


def tiny_tokenizer(vocabulary: list[str]) -> dict[str, Any]:
    """A BERT `tokenizer.json`: lower-casing, WordPiece, [CLS] text [SEP].

    Like MiniLM's it carries a truncation of its own, shorter than the model's limit, which an
    export must remove.
    """
    ids = {token: index for index, token in enumerate(vocabulary)}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}

    def piece(token: str, kind: int) -> dict[str, Any]:
        return {"SpecialToken": {"id": token, "type_id": kind}}

    def sequence(name: str, kind: int) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": kind}}

    single = [piece("[CLS]", 0), sequence("A", 0), piece("[SEP]", 0)]
    return {
        "version": "1.0",
        "truncation": {
            "direction": "Right",
            "max_length": 16,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        "padding": None,
        "added_tokens": [
            {"id": ids[t], "content": t, "special": True, **special} for t in _SPECIAL
        ],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": single,
            "pair": [*single, sequence("B", 1), piece("[SEP]", 1)],
            "special_tokens": {
                t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": ids,
        },
    }


def _config(
    *, layers: int, hidden: int, heads: int, intermediate: int, positions: int
) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "position_embedding_type": "absolute",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_hidden_layers": layers,
        "max_position_embeddings": positions,
        "type_vocab_size": 2,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    }


def _write(
    out: Path, config: dict[str, Any], seed: int, *, spread: float, tokenizer: dict[str, Any]
) -> Path:
    return write_source(out, config, random_weights(config, seed, spread), tokenizer)


def write_source(
    out: Path, config: dict[str, Any], tensors: dict[str, Any], tokenizer: dict[str, Any]
) -> Path:
    """Write the three source files of a model into `out` and return it."""
    from safetensors.numpy import save_file

    with staging(out) as part:
        save_file(tensors, part / "model.safetensors")
        (part / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
        (part / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
        out.mkdir(exist_ok=True)
        for file in sorted(part.iterdir()):
            file.replace(out / file.name)
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make the source files of a seeded model.")
    parser.add_argument("kind", choices=("cls", "mean", "geometry"))
    parser.add_argument("out", type=Path, metavar="DIR")
    parser.add_argument("--tokenizer", type=Path, metavar="PATH", help="for geometry")
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        if args.kind != "geometry":
            make_tiny(args.out, args.kind)
        elif args.tokenizer is None:
            parser.error("geometry needs --tokenizer PATH")
        else:
            make_geometry(args.out, args.tokenizer)
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    print(f"Made {args.kind} in {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
