"""RoBERTa and XLM-RoBERTa: BERT, but for how the tokens' places are counted.

From transformers' `create_position_ids_from_input_ids` (models/roberta/modeling_roberta.py): a
token's row in the position table is the padding token's id plus its place, counted from one. A
padding token that stands in the text itself (somebody wrote "<pad>") has the row of its own id,
and those after it are not moved. So places are counted here from the ids, not from the mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import bert_weights
from bert_graph import IDS, Bert
from bert_source import check_spec, encoder_numbers, only, read_table

if TYPE_CHECKING:
    from pathlib import Path

    from bert_source import BertConfig, Weights
    from bert_weights import Encoder
    from cortex_embed.domain import ModelSpec

_INT64 = 7


def read_config(path: Path, spec: ModelSpec) -> BertConfig:
    """The encoder's numbers, checked against the spec. Raises ModelFileError."""
    table = read_table(path)
    only(table, "model_type", spec.family, default=None)
    types = table.whole("type_vocab_size", low=1)
    config = encoder_numbers(table, types=types, padding_id=table.whole("pad_token_id", low=0))
    check_spec(config, spec, path)
    return config


def arrange(weights: Weights, config: BertConfig) -> Encoder:
    """Arrange `weights`. Raises ModelFileError for a missing or misshapen tensor."""
    return bert_weights.encoder(weights, config)


class Roberta(Bert):
    """BERT's blocks, with places counted from the ids."""

    def position_rows(self) -> str:
        """What its place adds to a token's word row, [batch, sequence, hidden]."""
        g = self.g
        positions = g.constant("positions", self.encoder.positions)
        padding = g.constant("padding_id", self.config.padding_id or 0, "int64")
        is_padding = g.node("Equal", IDS, padding, out="is_padding")
        counts = g.node("Cast", g.node("Not", is_padding, out="is_token"), out="counts", to=_INT64)
        axis = g.constant("sequence_axis", 1, "int64")
        places = g.node("CumSum", counts, axis, out="places_counted")
        places = g.node("Mul", places, counts, out="places")
        rows = g.node("Add", places, padding, out="position_ids")
        return g.node("Gather", positions, rows, out="position_rows")
