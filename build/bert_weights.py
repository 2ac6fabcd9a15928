"""A BERT encoder's tensors, arranged as the graph uses them.

It exists so that exporting and quantizing name a layer's parts alike. It must never change
a value but by folding the token type's row into the positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bert_source import BertConfig, Weights

    Floats = NDArray[np.float32]

LINEARS = ("query", "key", "value", "output", "up", "down")
"""The six linear layers of an encoder layer, in the order in which they run."""


@dataclass(frozen=True, slots=True)
class Linear:
    """y = x @ weight + bias; `weight` float32 [in, out], `bias` float32 [out]."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalization; both float32 [hidden]."""

    gamma: Floats
    beta: Floats


@dataclass(frozen=True, slots=True)
class Layer:
    """One encoder layer; `linears` by the names in LINEARS."""

    linears: dict[str, Linear]
    attention_norm: Norm
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class Encoder:
    """`words` float32 [vocabulary, hidden]; `positions` float32 [positions, hidden].

    Token types are all zero wherever a text is embedded alone, so their row is in `positions`.
    """

    words: Floats
    positions: Floats
    norm: Norm
    layers: tuple[Layer, ...]


def encoder(weights: Weights, config: BertConfig) -> Encoder:
    """Arrange `weights`. Raises ModelFileError for a missing or misshapen tensor."""
    name = "embeddings"
    words = weights.take(f"{name}.word_embeddings.weight", config.vocab_size, config.hidden)
    positions = weights.take(f"{name}.position_embeddings.weight", config.positions, config.hidden)
    types = weights.take(f"{name}.token_type_embeddings.weight", config.types, config.hidden)
    return Encoder(
        words=words,
        positions=positions + types[0],
        norm=_norm(weights, f"{name}.LayerNorm", config),
        layers=tuple(_layer(weights, f"encoder.layer.{i}", config) for i in range(config.layers)),
    )


def _layer(weights: Weights, name: str, config: BertConfig) -> Layer:
    hidden, wide = config.hidden, config.intermediate
    places = {
        "query": ("attention.self.query", hidden, hidden),
        "key": ("attention.self.key", hidden, hidden),
        "value": ("attention.self.value", hidden, hidden),
        "output": ("attention.output.dense", hidden, hidden),
        "up": ("intermediate.dense", hidden, wide),
        "down": ("output.dense", wide, hidden),
    }
    return Layer(
        linears={
            part: _linear(weights, f"{name}.{place}", inputs, outputs)
            for part, (place, inputs, outputs) in places.items()
        },
        attention_norm=_norm(weights, f"{name}.attention.output.LayerNorm", config),
        output_norm=_norm(weights, f"{name}.output.LayerNorm", config),
    )


def _linear(weights: Weights, name: str, inputs: int, outputs: int) -> Linear:
    import numpy as np

    # PyTorch stores [out, in].
    matrix = np.ascontiguousarray(weights.take(f"{name}.weight", outputs, inputs).T)
    return Linear(matrix, weights.take(f"{name}.bias", outputs))


def _norm(weights: Weights, name: str, config: BertConfig) -> Norm:
    return Norm(
        weights.take(f"{name}.weight", config.hidden), weights.take(f"{name}.bias", config.hidden)
    )
