"""MPNet: RoBERTa's count of places, no token types, and a bias for every distance.

From transformers' models/mpnet/modeling_mpnet.py (`MPNetEncoder.compute_position_bias`): one
table of 32 buckets by heads, shared by all layers; its numbers are fixed in the code there, as
is the padding token's id, whatever `config.json` says. The bias is laid out here as one matrix
per head, of which a graph takes the corner that its texts need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bert_source import check_spec, encoder_numbers, only, read_table
from bert_weights import Encoder, Names, layers, norm
from roberta import Roberta

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from bert_source import BertConfig, Weights
    from cortex_embed.domain import ModelSpec

PADDING_ID = 1
BUCKETS = 32
_SIDE = BUCKETS // 2  # for tokens before, and as many for tokens after
_EXACT = _SIDE // 2  # so many distances have a bucket of their own

NAMES = Names(
    linears={
        "query": "attention.attn.q",
        "key": "attention.attn.k",
        "value": "attention.attn.v",
        "output": "attention.attn.o",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    attention_norm="attention.LayerNorm",
    output_norm="output.LayerNorm",
)


def read_config(path: Path, spec: ModelSpec) -> BertConfig:
    """The encoder's numbers, checked against the spec. Raises ModelFileError."""
    table = read_table(path)
    only(table, "model_type", "mpnet", default=None)
    only(table, "pad_token_id", PADDING_ID, default=PADDING_ID)
    only(table, "relative_attention_num_buckets", BUCKETS, default=BUCKETS)
    config = encoder_numbers(table, types=0, padding_id=PADDING_ID)
    check_spec(config, spec, path)
    return config


def arrange(weights: Weights, config: BertConfig) -> Encoder:
    """Arrange `weights`. Raises ModelFileError for a missing or misshapen tensor."""
    import numpy as np

    name, hidden = "embeddings", config.hidden
    table = weights.take("encoder.relative_attention_bias.weight", BUCKETS, config.heads)
    by_place = np.array([[bucket(key - query) for key in range(config.places)]
                         for query in range(config.places)])  # fmt: skip
    return Encoder(
        words=weights.take(f"{name}.word_embeddings.weight", config.vocab_size, hidden),
        positions=weights.take(f"{name}.position_embeddings.weight", config.positions, hidden),
        norm=norm(weights, f"{name}.LayerNorm", config),
        layers=layers(weights, config, NAMES),
        attention_bias=_by_head(table, by_place),
    )


def bucket(distance: int) -> int:
    """The bucket of a key so many places after its query (negative: before).

    Up to 7 places have a bucket each, then the buckets widen by the root of two; from 91 on
    there is one. In whole numbers, where upstream takes logarithms in float32: equal for every
    distance (`build/parity.py` compares them), and the same on every machine.
    """
    side = _SIDE if distance > 0 else 0
    apart = abs(distance)
    if apart < _EXACT:
        return side + apart
    wider = 0
    while wider < _SIDE - _EXACT - 1 and apart**2 >= _EXACT**2 * 2 ** (wider + 1):
        wider += 1
    return side + _EXACT + wider


def _by_head(table: NDArray[np.float32], by_place: NDArray[np.int64]) -> NDArray[np.float32]:
    import numpy as np

    return np.ascontiguousarray(table[by_place].transpose(2, 0, 1))


class Mpnet(Roberta):
    """RoBERTa's blocks, with the bias added to every layer's scores."""

    def prepare(self) -> None:
        super().prepare()
        g, bias = self.g, self.encoder.attention_bias
        assert bias is not None  # noqa: S101 - `arrange` gave it
        whole = g.constant("attention_bias", bias[None])
        length = g.node("Slice", self.shape, g.ints(1), g.ints(2), out="length")
        corner = g.node("Concat", length, length, out="corner", axis=0)
        self.bias = g.node("Slice", whole, g.ints(0, 0), corner, g.ints(2, 3), out="bias")

    def score_bias(self, *, first_only: bool) -> str:
        g = self.g
        if not first_only:
            return self.bias
        return g.node("Slice", self.bias, g.ints(0), g.ints(1), g.ints(2), out="first_bias")
