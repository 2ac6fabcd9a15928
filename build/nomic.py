"""nomic-bert: rotary positions and a gated feed-forward, no biases but the norms'.

From nomic-ai/nomic-bert-2048's modeling_hf_nomic_bert.py (`NomicBertAttention`,
`NomciBertGatedMLP`), and transformers' models/nomic_bert, whose names its newer `config.json`
holds beside the older ones. Queries and keys are rotated by their place (RoFormer,
arXiv:2104.09864), the two halves of a head forming the pairs; the feed-forward is SwiGLU
(arXiv:2002.05202), `fc12` the gate.

What a `config.json` can ask for and is refused: biases, rotations of a part or of neighbours,
scaled rotations (they depend on the longest text of a batch), experts, norms before a layer.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from bert_graph import Bert
from bert_source import WAY_OUT, BertConfig, check_spec, only, read_table
from bert_weights import Encoder, Layer, Linear, linear, norm, widths
from cortex_embed.errors import ModelFileError
from graph_builder import CONTRIB

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bert_source import Weights
    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.table import Table

    Floats = NDArray[np.float32]

_FIXED: dict[str, object] = {
    "prenorm": False,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "causal": False,
    "use_rms_norm": False,
    "norm_mlp": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "activation_function": "swiglu",
    "hidden_act": "silu",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "rotary_head_dim": False,
    "rope_scaling": None,
    "num_experts": 0,
}
"""What the graph reproduces; these are also the values where a newer `config.json` is silent."""
_BIASES = ("qkv_proj_bias", "mlp_fc1_bias", "mlp_fc2_bias")


def read_config(path: Path, spec: ModelSpec) -> BertConfig:
    """The encoder's numbers, checked against the spec. Raises ModelFileError."""
    table = read_table(path)
    only(table, "model_type", "nomic_bert", default=None)
    if "n_embd" in table.data:  # the older code's default for these is another one
        for key in ("activation_function", "rotary_emb_fraction", *_BIASES):
            only(table, key, _FIXED[key], default=None)
    for key, value in _FIXED.items():
        if value or table.data.get(key):  # null, false, 0 and silence are one thing
            only(table, key, value, default=value)
    heads = _either(table, "n_head", "num_attention_heads")
    only(table, "num_heads_kv", heads if table.data.get("num_heads_kv") else None, default=None)
    config = BertConfig(
        layers=_either(table, "n_layer", "num_hidden_layers"),
        hidden=_either(table, "n_embd", "hidden_size"),
        heads=heads,
        intermediate=_either(table, "n_inner", "intermediate_size"),
        vocab_size=table.whole("vocab_size", low=1),
        # `max_position_embeddings` is what it was trained on, 2048; rotations go on.
        positions=table.whole(
            "n_positions" if "n_positions" in table.data else "max_position_embeddings", low=1
        ),
        types=table.whole("type_vocab_size", low=1),
        epsilon=_epsilon(table),
        rotary_base=_rotary_base(table),
    )
    check_spec(config, spec, path)
    width = config.hidden // config.heads
    only(table, "head_dim", width if table.data.get("head_dim") else None, default=None)
    if width % 2:
        raise ModelFileError(f"{path}: heads of {width} values cannot be rotated. {WAY_OUT}")
    return config


def _either(table: Table, older: str, newer: str) -> int:
    """A number that has two names. Raises ModelFileError where they disagree."""
    values = {table.whole(key, low=1) for key in (older, newer) if key in table.data}
    if len(values) > 1:
        raise ModelFileError(f"{table.where}: `{older}` and `{newer}` differ. {WAY_OUT}")
    return values.pop() if values else table.whole(newer, low=1)


def _epsilon(table: Table) -> float:
    older, newer = "layer_norm_epsilon", "layer_norm_eps"
    if older in table.data and newer in table.data:
        only(table, older, table.number(newer), default=None)
    return table.number(older if older in table.data else newer)


def _rotary_base(table: Table) -> float:
    """The base of the angles, under either name. Raises ModelFileError for another rotation."""
    if not table.data.get("rope_parameters"):
        return table.number("rotary_emb_base")
    rope = table.table("rope_parameters")
    only(rope, "rope_type", "default", default="default")
    only(rope, "partial_rotary_factor", 1.0, default=1.0)
    base = rope.number("rope_theta")
    only(table, "rotary_emb_base", base, default=base)
    return base


def arrange(weights: Weights, config: BertConfig) -> Encoder:
    """Arrange `weights`. Raises ModelFileError for a missing or misshapen tensor.

    There is no position table: `positions` is the token type's row alone, [1, hidden].
    """
    name, hidden = "embeddings", config.hidden
    types = weights.take(f"{name}.token_type_embeddings.weight", config.types, hidden)
    return Encoder(
        words=weights.take(f"{name}.word_embeddings.weight", config.vocab_size, hidden),
        positions=types[:1],
        norm=norm(weights, "emb_ln", config),
        layers=tuple(_layer(weights, f"encoder.layers.{i}", config) for i in range(config.layers)),
    )


def _layer(weights: Weights, name: str, config: BertConfig) -> Layer:
    import numpy as np

    hidden = config.hidden
    fused = weights.take(f"{name}.attn.Wqkv.weight", 3 * hidden, hidden)
    zeros = np.zeros(hidden, dtype=np.float32)
    linears = {
        part: Linear(np.ascontiguousarray(rows.T), zeros)
        for part, rows in zip(("query", "key", "value"), np.split(fused, 3), strict=True)
    }
    places = {"output": "attn.out_proj", "up": "mlp.fc11", "gate": "mlp.fc12", "down": "mlp.fc2"}
    for part, place in places.items():
        linears[part] = linear(weights, f"{name}.{place}", *widths(part, config), biased=False)
    return Layer(
        linears=linears,
        attention_norm=norm(weights, f"{name}.norm1", config),
        output_norm=norm(weights, f"{name}.norm2", config),
    )


def frequencies(config: BertConfig) -> Floats:
    """By how much each pair of a head turns from place to place, float32 [head width / 2].

    The powers are rounded to float32 and so are their inverses, as in upstream's steps: the
    far places of a text multiply the difference of a last bit by thousands.
    """
    import numpy as np

    width = config.hidden // config.heads
    powers = [math.pow(config.rotary_base, i / width) for i in range(0, width, 2)]
    inverse: Floats = np.float32(1) / np.array(powers, dtype=np.float32)
    return inverse


def rotations(config: BertConfig) -> tuple[Floats, Floats]:
    """Cosines and sines by place, float32 [positions, head width / 2].

    An angle is rounded to float32, as upstream's is; its cosine is taken in float64 and then
    rounded, so that every machine gets the same.
    """
    import numpy as np

    places = np.arange(config.positions, dtype=np.float32)
    angles = np.outer(places, frequencies(config)).astype(np.float64)
    return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


class NomicBert(Bert):
    """BERT's blocks, with queries and keys rotated, and a gate in the feed-forward."""

    def prepare(self) -> None:
        super().prepare()
        cosines, sines = rotations(self.config)
        self.cosines = self.g.constant("cosines", cosines)
        self.sines = self.g.constant("sines", sines)

    def position_rows(self) -> str:
        return self.g.constant("positions", self.encoder.positions)

    def placed(self, x: str, out: str) -> str:
        """Queries or keys turned by their place; the first one's angle is zero."""
        g, heads = self.g, self.config.heads
        inputs = [x, g.ints(0), self.cosines, self.sines]
        return g.node("RotaryEmbedding", *inputs, out=out, domain=CONTRIB, num_heads=heads)

    def feed_forward(self, x: str, index: int) -> str:
        """hidden → intermediate → hidden; one half lets through what the other gives."""
        g = self.g
        wide = self.linear(x, f"{index}.up")
        gate = self.linear(x, f"{index}.gate")
        share = g.node("Sigmoid", gate, out=f"{index}.share")
        gate = g.node("Mul", gate, share, out=f"{index}.swish")
        wide = g.node("Mul", wide, gate, out=f"{index}.product")
        return self.linear(wide, f"{index}.down")
