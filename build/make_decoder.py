"""A small decoder with a key-value cache, made of seeded numbers, as its authors publish one.

Qwen3's blocks: RMS norms (of queries and keys too), rotary positions, fewer heads of keys than of
queries, a gated feed-forward. The graph takes `past_key_values` and gives `present` beside its
token states, as text generation needs it and as embedding models based on a decoder are
exported. `fused` has attention in onnxruntime's own GroupQueryAttention, as onnxruntime's model
builder writes it; it counts the mask's ones instead of reading it.

From transformers' models/qwen3/modeling_qwen3.py. It must never become an exporter: it is for
tests of what we run and do not make.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from family_tokenizers import ended_byte_pairs
from graph_builder import CONTRIB, GraphBuilder
from make_families import largest_id
from make_tiny import uniform

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    Floats = NDArray[np.float32]

LAYERS, HIDDEN, HEADS, KEY_HEADS, WIDTH, WIDE = 2, 32, 4, 2, 16, 64
"""HEADS x WIDTH is not HIDDEN, as in Qwen3."""
POSITIONS = 128
EPSILON = 1e-6
ROTARY_BASE = 10_000.0
PREFIX = "Instruct: find the text\nQuery:"
_SEED = 25_001
_OPSET = 17
_LOWEST = -3.4028234663852886e38  # what exporters write for a place that must not be seen


def make_decoder(out: Path, *, fused: bool = False) -> Path:
    """Write the repository into `out` and return it."""
    tokenizer = ended_byte_pairs()
    weights = decoder_weights(rows=largest_id(tokenizer) + 1)
    modules = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    documents: dict[str, object] = {
        "config.json": {
            "architectures": ["Qwen3Model"],
            "model_type": "qwen3",
            "hidden_size": HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_HEADS,
            "head_dim": WIDTH,
            "intermediate_size": WIDE,
            "vocab_size": len(weights["embed_tokens"]),
            "max_position_embeddings": POSITIONS,
            "rms_norm_eps": EPSILON,
            "rope_theta": ROTARY_BASE,
        },
        "tokenizer.json": tokenizer,
        "modules.json": [
            {"path": path, "type": f"sentence_transformers.models.{kind}"}
            for path, kind in modules.items()
        ],
        "1_Pooling/config.json": {"embedding_dimension": HIDDEN, "pooling_mode": "lasttoken"},
        "config_sentence_transformers.json": {"prompts": {"query": PREFIX, "document": ""}},
    }
    for name, document in documents.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(json.dumps(document), encoding="utf-8")
    (out / "onnx").mkdir()
    graph = _Decoder(weights, fused=fused).model()
    (out / "onnx" / "model.onnx").write_bytes(graph.SerializeToString(deterministic=True))
    return out


def decoder_weights(rows: int) -> dict[str, Floats]:
    """Every tensor by a short name; linear ones [inputs, outputs]."""
    import numpy as np

    stream = np.random.RandomState(_SEED)
    queries, keys = HEADS * WIDTH, KEY_HEADS * WIDTH
    weights = {"embed_tokens": uniform(stream, 0.5, rows, HIDDEN)}
    shapes = {
        "q": (HIDDEN, queries), "k": (HIDDEN, keys), "v": (HIDDEN, keys), "o": (queries, HIDDEN),
        "gate": (HIDDEN, WIDE), "up": (HIDDEN, WIDE), "down": (WIDE, HIDDEN),
    }  # fmt: skip
    norms = {"input_norm": HIDDEN, "q_norm": WIDTH, "k_norm": WIDTH, "post_norm": HIDDEN}
    for layer in range(LAYERS):
        for name, shape in shapes.items():
            deviation = 1.2 / math.sqrt(shape[0])
            weights[f"{layer}.{name}"] = uniform(stream, deviation, *shape)
        for name, width in norms.items():
            weights[f"{layer}.{name}"] = uniform(stream, 0.2, width, around=1.0)
    weights["norm"] = uniform(stream, 0.2, HIDDEN, around=1.0)
    return weights


def rotations() -> tuple[Floats, Floats]:
    """Cosines and sines by place, float32 [positions, width / 2]."""
    import numpy as np

    inverse = ROTARY_BASE ** (-np.arange(0, WIDTH, 2) / WIDTH)
    angles = np.outer(np.arange(POSITIONS), inverse)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


class _Decoder:
    """The graph under construction."""

    def __init__(self, weights: dict[str, Floats], *, fused: bool) -> None:
        self.g = GraphBuilder()
        self.weights = weights
        self.fused = fused
        self.cosines, self.sines = (
            self.g.constant(name, table)
            for name, table in zip(("cosines", "sines"), rotations(), strict=True)
        )

    def model(self) -> ModelProto:
        from onnx import TensorProto, helper

        g = self.g
        self.seen = self._lengths() if self.fused else self._mask()
        x = g.node("Gather", self._weight("embed_tokens"), "input_ids", out="x")
        for layer in range(LAYERS):
            x = self._layer(x, layer)
        self._norm(x, "norm", out="last_hidden_state")
        outputs: dict[str, Any] = {"last_hidden_state": ["batch", "sequence", HIDDEN]}
        kept = ["batch", KEY_HEADS, "past + sequence", WIDTH]
        outputs |= dict.fromkeys(_cache("present"), kept)
        model = g.model(["input_ids", "attention_mask", "position_ids"], outputs, opset=_OPSET)
        model.graph.input[1].type.tensor_type.shape.dim[1].dim_param = "past + sequence"
        past = ["batch", KEY_HEADS, "past", WIDTH]
        model.graph.input.extend(
            helper.make_tensor_value_info(name, TensorProto.FLOAT, past)
            for name in _cache("past_key_values")
        )
        return model

    def _weight(self, name: str) -> str:
        return self.g.constant(f"w.{name}", self.weights[name])

    def _linear(self, x: str, name: str, out: str) -> str:
        return self.g.node("MatMul", x, self._weight(name), out=out)

    def _norm(self, x: str, name: str, out: str) -> str:
        """Over the last axis: x / sqrt(mean(x²) + epsilon), times a weight."""
        g = self.g
        squares = g.node("Mul", x, x, out=f"{out}.squares")
        mean = g.node("ReduceMean", squares, out=f"{out}.mean", axes=[-1])
        mean = g.node("Add", mean, g.constant("epsilon", EPSILON), out=f"{out}.above")
        root = g.node("Sqrt", mean, out=f"{out}.root")
        unit = g.node("Div", x, root, out=f"{out}.unit")
        return g.node("Mul", unit, self._weight(name), out=out)

    def _layer(self, x: str, layer: int) -> str:
        g = self.g
        normed = self._norm(x, f"{layer}.input_norm", out=f"{layer}.in")
        q = self._heads(normed, layer, "q", HEADS)
        k = self._heads(normed, layer, "k", KEY_HEADS)
        v = self._split(self._linear(normed, f"{layer}.v", f"{layer}.v"), KEY_HEADS)
        attend = self._attend_fused if self.fused else self._attend
        attended = self._linear(attend(q, k, v, layer), f"{layer}.o", f"{layer}.o")
        x = g.node("Add", x, attended, out=f"{layer}.x")
        normed = self._norm(x, f"{layer}.post_norm", out=f"{layer}.post")
        gate = self._linear(normed, f"{layer}.gate", f"{layer}.gate")
        gate = g.node("Mul", gate, g.node("Sigmoid", gate, out=f"{layer}.s"), out=f"{layer}.silu")
        up = g.node(
            "Mul", gate, self._linear(normed, f"{layer}.up", f"{layer}.up"), out=f"{layer}.w"
        )
        return g.node("Add", x, self._linear(up, f"{layer}.down", f"{layer}.d"), out=f"{layer}.out")

    def _split(self, x: str, heads: int) -> str:
        """[batch, sequence, heads x width] to [batch, heads, sequence, width]."""
        g = self.g
        parted = g.node("Reshape", x, g.ints(0, 0, heads, WIDTH), out=f"{x}.parted")
        return g.node("Transpose", parted, out=f"{x}.heads", perm=[0, 2, 1, 3])

    def _joined(self, x: str) -> str:
        g = self.g
        turned = g.node("Transpose", x, out=f"{x}.turned", perm=[0, 2, 1, 3])
        return g.node("Reshape", turned, g.ints(0, 0, -1), out=f"{x}.joined")

    def _heads(self, x: str, layer: int, part: str, heads: int) -> str:
        """Queries or keys by head, normed and turned by their place."""
        split = self._split(self._linear(x, f"{layer}.{part}", f"{layer}.{part}"), heads)
        normed = self._norm(split, f"{layer}.{part}_norm", out=f"{split}.normed")
        inputs = [normed, "position_ids", self.cosines, self.sines]
        return self.g.node("RotaryEmbedding", *inputs, out=f"{split}.placed", domain=CONTRIB)

    def _mask(self) -> str:
        """[batch, 1, sequence, past + sequence]: 0 for what a token sees, else far below."""
        g = self.g
        one = g.constant("one", 1, "int64")
        zero = g.constant("zero", 0, "int64")
        axis = g.constant("axis", 1, "int64")
        total = g.node("Gather", g.node("Shape", "attention_mask", out="ms"), axis, out="total")
        length = g.node("Gather", g.node("Shape", "input_ids", out="is"), axis, out="length")
        past = g.node("Sub", total, length, out="past_length")
        keys = g.node("Range", zero, total, one, out="keys")
        queries = g.node("Add", g.node("Range", zero, length, one, out="own"), past, out="queries")
        queries = g.node("Unsqueeze", queries, g.ints(1), out="queries.column")
        causal = g.node("LessOrEqual", keys, queries, out="causal")
        real = g.node("Cast", "attention_mask", out="real", to=9)  # bool
        real = g.node("Unsqueeze", real, g.ints(1, 2), out="real.wide")
        seen = g.node("And", causal, real, out="seen")
        choices = [g.constant("shown", 0.0), g.constant("lowest", _LOWEST)]
        return g.node("Where", seen, *choices, out="bias")

    def _attend(self, q: str, k: str, v: str, layer: int) -> str:
        g = self.g
        kept = {}
        for part, new in (("key", k), ("value", v)):
            past, present = f"past_key_values.{layer}.{part}", f"present.{layer}.{part}"
            whole = g.node("Concat", past, new, out=present, axis=2)
            owner = g.constant("owners", [h * KEY_HEADS // HEADS for h in range(HEADS)], "int64")
            kept[part] = g.node("Gather", whole, owner, out=f"{present}.shared", axis=1)
        keys = g.node("Transpose", kept["key"], out=f"{layer}.kt", perm=[0, 1, 3, 2])
        scores = g.node("MatMul", q, keys, out=f"{layer}.raw")
        scores = g.node("Mul", scores, g.constant("scale", WIDTH**-0.5), out=f"{layer}.scaled")
        scores = g.node("Add", scores, self.seen, out=f"{layer}.scores")
        shares = g.node("Softmax", scores, out=f"{layer}.shares", axis=-1)
        return self._joined(g.node("MatMul", shares, kept["value"], out=f"{layer}.context"))

    def _lengths(self) -> str:
        """int32 [batch]: each text's real tokens less one, as GroupQueryAttention wants it."""
        g = self.g
        count = g.node("ReduceSum", "attention_mask", g.ints(1), out="count", keepdims=0)
        last = g.node("Sub", count, g.constant("one", 1, "int64"), out="last")
        shape = g.node("Shape", "attention_mask", out="mask.shape")
        total = g.node("Gather", shape, g.constant("axis", 1, "int64"), out="total.wide")
        self.total = g.node("Cast", total, out="total", to=6)  # int32
        return g.node("Cast", last, out="lengths", to=6)

    def _attend_fused(self, q: str, k: str, v: str, layer: int) -> str:
        from onnx import helper

        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        out = f"{layer}.context"
        self.g.nodes.append(
            helper.make_node(
                "GroupQueryAttention",
                [*map(self._joined, (q, k, v)), *past, self.seen, self.total],
                [out, *present],
                name=out,
                domain=CONTRIB,
                num_heads=HEADS,
                kv_num_heads=KEY_HEADS,
            )
        )
        return out


def _cache(name: str) -> list[str]:
    return [f"{name}.{layer}.{part}" for layer in range(LAYERS) for part in ("key", "value")]
