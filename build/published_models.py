"""The models that run on a graph of others, by family: architecture, geometry, files, prompts.

It exists so that parity is shown for what people download, not for what we export: each row is
a model of the catalogue as its authors made it, with random weights, once tiny and once in the
known model's own geometry. It must never name one that transformers cannot compute: jina-bert-v2
(jina-embeddings-v2-base-code) is code in its own repository, which is not run here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.errors import UsageError
from cortex_embed.models.catalogue import find
from family_tokenizers import byte_pairs, ended_byte_pairs, spaced_pairs, unigrams, word_pieces
from make_families import largest_id
from make_tiny import tiny_tokenizer, tiny_vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.domain import ModelSpec

Output = Literal["states", "vector", "both"]


@dataclass(frozen=True, slots=True)
class Publication:
    """A model as a repository holds it.

    `architecture` is transformers' class, `config` what its configuration says beside its
    defaults. `output` says whether the graph gives token states, the finished vector, or both
    (then the vector counts); `cached` whether it is a decoder with a key-value cache to feed.
    `longest` bounds the tokens of the texts compared; `dense` are the widths of
    sentence-transformers' Dense modules after the pooling.
    """

    id: str
    like: str
    architecture: str
    config: dict[str, Any]
    tokenizer: Callable[[], dict[str, Any]]
    inputs: tuple[str, ...]
    max_tokens: int
    longest: int
    output: Output = "states"
    cached: bool = False
    dense: tuple[int, ...] = ()
    is_tiny: bool = False

    @property
    def known(self) -> ModelSpec:
        """The catalogue's word on pooling and prefixes. Raises UsageError."""
        entry = find(self.like)
        if entry is None:
            raise UsageError(f"The catalogue has no {self.like}.")
        return entry.spec


def _bert_tokenizer() -> dict[str, Any]:
    return tiny_tokenizer(tiny_vocabulary())


_IDS = ("input_ids", "attention_mask")
_TYPED = (*_IDS, "token_type_ids")


def _encoder(
    layers: int, hidden: int, heads: int, vocabulary: int, **own: object
) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "num_attention_heads": heads,
        "intermediate_size": 4 * hidden,
        "vocab_size": vocabulary,
        **own,
    }


_XLMR = {"pad_token_id": 1, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
_QWEN3 = _encoder(
    28, 1024, 16, 151_669, intermediate_size=3072, num_key_value_heads=8, head_dim=128,
    max_position_embeddings=32_768, rope_parameters={"rope_type": "default", "rope_theta": 1e6},
)  # fmt: skip
_GEMMA = _encoder(
    24, 768, 3, 262_144, intermediate_size=1152, num_key_value_heads=1, head_dim=256,
    max_position_embeddings=2048, sliding_window=512, use_bidirectional_attention=True,
)  # fmt: skip

REAL = (
    Publication(
        "e5-small-v2", "e5-small-v2", "BertModel",
        _encoder(12, 384, 12, 30_522, max_position_embeddings=512),
        _bert_tokenizer, _TYPED, 512, 512,
    ),
    Publication(
        "bge-small", "bge-small-en-v1.5", "BertModel",
        _encoder(12, 384, 12, 30_522, max_position_embeddings=512),
        _bert_tokenizer, _TYPED, 512, 512,
    ),
    Publication(
        "multilingual-e5-base", "multilingual-e5-base", "XLMRobertaModel",
        _encoder(12, 768, 12, 250_002, max_position_embeddings=514, **_XLMR),
        unigrams, _IDS, 512, 512,
    ),
    Publication(
        "bge-m3", "bge-m3", "XLMRobertaModel",
        _encoder(24, 1024, 16, 250_002, max_position_embeddings=8194, **_XLMR),
        unigrams, _IDS, 8192, 2048, output="both",
    ),
    Publication(
        "all-mpnet-base-v2", "all-mpnet-base-v2", "MPNetModel",
        _encoder(12, 768, 12, 30_527, max_position_embeddings=514, layer_norm_eps=1e-5),
        word_pieces, _IDS, 384, 384,
    ),
    Publication(
        "codebert", "codebert-base", "RobertaModel",
        _encoder(12, 768, 12, 50_265, max_position_embeddings=514, **_XLMR),
        byte_pairs, _IDS, 512, 512,
    ),
    Publication(
        "nomic-v1.5", "nomic-embed-text-v1.5", "NomicBertModel",
        _encoder(
            12, 768, 12, 30_528, max_position_embeddings=8192, pad_token_id=0,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        ),
        _bert_tokenizer, _TYPED, 8192, 8192,
    ),
    Publication(
        "gte-multilingual", "gte-multilingual-base", "GteModel",
        _encoder(12, 768, 12, 250_048, max_position_embeddings=8192, pad_token_id=1),
        unigrams, _IDS, 8192, 2048,
    ),
    Publication(
        "qwen3-0.6b", "qwen3-embedding-0.6b", "Qwen3Model", _QWEN3,
        ended_byte_pairs, _IDS, 32_768, 1024,
    ),
    Publication(
        "qwen3-0.6b-cache", "qwen3-embedding-0.6b", "Qwen3Model", _QWEN3,
        ended_byte_pairs, (*_IDS, "position_ids"), 32_768, 1024, cached=True,
    ),
    Publication(
        "embeddinggemma", "embeddinggemma-300m", "Gemma3TextModel", _GEMMA,
        spaced_pairs, _IDS, 2048, 2048, output="both", dense=(3072, 768),
    ),
)  # fmt: skip
"""In the geometry of the catalogue's model. What bounds `longest` is time, not the program."""


def _tiny(row: Publication) -> Publication:
    """The same family with 32 dimensions, few layers, and the same limits up to 8,192 tokens."""
    config = row.config | {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64}
    config["num_attention_heads"] = 4
    if "head_dim" in config:
        config |= {"num_key_value_heads": 2, "head_dim": 16}  # 4 x 16 is not 32, as in Qwen3
    if "sliding_window" in config:
        config |= {"num_hidden_layers": 7, "sliding_window": 16}  # every sixth layer sees all
    config["vocab_size"] = (largest_id(row.tokenizer()) // 64 + 1) * 64
    limit = min(row.max_tokens, 8192)
    dense = (48, 32) if row.dense else ()
    return replace(
        row, id=f"tiny-{row.id}", config=config, max_tokens=limit, longest=limit, dense=dense,
        is_tiny=True,
    )  # fmt: skip


PUBLICATIONS = (*map(_tiny, REAL), *REAL)


def chosen(only: str | None) -> list[Publication]:
    """Those whose id starts with `only`; all for None. Raises UsageError."""
    found = [row for row in PUBLICATIONS if row.id.startswith(only or "")]
    if not found:
        known = ", ".join(row.id for row in PUBLICATIONS)
        raise UsageError(f"There is no published model {only!r}. Known are: {known}.")
    return found
