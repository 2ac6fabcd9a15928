"""An encoder's tensors, arranged as the graph uses them.

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


@dataclass(frozen=True, slots=True)
class Names:
    """What the tensors of an encoder layer are called: linear layers by part, and two norms."""

    linears: dict[str, str]
    attention_norm: str
    output_norm: str


BERT = Names(
    linears={
        "query": "attention.self.query",
        "key": "attention.self.key",
        "value": "attention.self.value",
        "output": "attention.output.dense",
        "up": "intermediate.dense",
        "down": "output.dense",
    },
    attention_norm="attention.output.LayerNorm",
    output_norm="output.LayerNorm",
)


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
    """One encoder layer; `linears` by part, in the order in which they run."""

    linears: dict[str, Linear]
    attention_norm: Norm
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class Encoder:
    """`words` float32 [vocabulary, hidden]; `positions` float32 [positions, hidden].

    Token types are all zero wherever a text is embedded alone, so their row is in `positions`.
    `attention_bias` float32 [heads, places, places] is added to every layer's scores.
    """

    words: Floats
    positions: Floats
    norm: Norm
    layers: tuple[Layer, ...]
    attention_bias: Floats | None = None


def encoder(weights: Weights, config: BertConfig) -> Encoder:
    """Arrange a BERT's `weights`. Raises ModelFileError for a missing or misshapen tensor."""
    name = "embeddings"
    words = weights.take(f"{name}.word_embeddings.weight", config.vocab_size, config.hidden)
    positions = weights.take(f"{name}.position_embeddings.weight", config.positions, config.hidden)
    types = weights.take(f"{name}.token_type_embeddings.weight", config.types, config.hidden)
    return Encoder(
        words=words,
        positions=positions + types[0],
        norm=norm(weights, f"{name}.LayerNorm", config),
        layers=layers(weights, config, BERT),
    )


def layers(weights: Weights, config: BertConfig, names: Names) -> tuple[Layer, ...]:
    """Every encoder layer, under `encoder.layer.N`."""
    return tuple(_layer(weights, f"encoder.layer.{i}", config, names) for i in range(config.layers))


def _layer(weights: Weights, name: str, config: BertConfig, names: Names) -> Layer:
    return Layer(
        linears={
            part: linear(weights, f"{name}.{place}", *widths(part, config))
            for part, place in names.linears.items()
        },
        attention_norm=norm(weights, f"{name}.{names.attention_norm}", config),
        output_norm=norm(weights, f"{name}.{names.output_norm}", config),
    )


def widths(part: str, config: BertConfig) -> tuple[int, int]:
    """How many values a linear layer reads and gives."""
    inputs = config.intermediate if part == "down" else config.hidden
    outputs = config.intermediate if part in {"up", "gate"} else config.hidden
    return inputs, outputs


def linear(
    weights: Weights, name: str, inputs: int, outputs: int, *, biased: bool = True
) -> Linear:
    """One linear layer; its bias is zero where the family has none."""
    import numpy as np

    # PyTorch stores [out, in].
    matrix = np.ascontiguousarray(weights.take(f"{name}.weight", outputs, inputs).T)
    zeros = np.zeros(outputs, dtype=np.float32)
    return Linear(matrix, weights.take(f"{name}.bias", outputs) if biased else zeros)


def norm(weights: Weights, name: str, config: BertConfig) -> Norm:
    """One layer normalization."""
    return Norm(
        weights.take(f"{name}.weight", config.hidden), weights.take(f"{name}.bias", config.hidden)
    )
