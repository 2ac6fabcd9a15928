"""The families of encoders that can be exported, and what is each one's own.

It exists so that a new family is one row here and one file beside it: how its `config.json`
is read, how its tensors are arranged, and which blocks of the graph differ from BERT's.
It must never hold anything that two families share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import bert_source
import bert_weights
import mpnet
import nomic
import roberta
from bert_graph import Bert
from bert_source import WAY_OUT
from cortex_embed.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bert_source import BertConfig, Weights
    from bert_weights import Encoder
    from cortex_embed.domain import ModelSpec


@dataclass(frozen=True, slots=True)
class Family:
    """How one family is read, arranged and built.

    `read_config` and `arrange` raise ModelFileError for what the blocks do not reproduce.
    """

    read_config: Callable[[Path, ModelSpec], BertConfig]
    arrange: Callable[[Weights, BertConfig], Encoder]
    blocks: type[Bert]


_ROBERTA = Family(roberta.read_config, roberta.arrange, roberta.Roberta)

FAMILIES = {
    "bert": Family(bert_source.read_config, bert_weights.encoder, Bert),
    "mpnet": Family(mpnet.read_config, mpnet.arrange, mpnet.Mpnet),
    "nomic-bert": Family(nomic.read_config, nomic.arrange, nomic.NomicBert),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
}
"""By the name that the catalogue uses."""


def family_of(spec: ModelSpec) -> Family:
    """The family of a model. Raises ModelFileError for one that cannot be exported."""
    if spec.family not in FAMILIES:
        raise ModelFileError(
            f"Model {spec.id}: family is {spec.family!r}, only {', '.join(sorted(FAMILIES))} "
            f"can be exported. {WAY_OUT}"
        )
    return FAMILIES[spec.family]
