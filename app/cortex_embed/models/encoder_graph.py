"""What an encoder of family `bert` computes, read back from the graph that our exporter wrote.

It follows the graph from its output to its input and takes every node for what it is: a graph
that differs anywhere from what build/bert_graph.py writes is refused with the reason, never
run as something else. It must never compute anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.errors import NativeEngineError
from cortex_embed.models.graph_tensors import read_graph

if TYPE_CHECKING:
    from collections.abc import Container
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.models.graph_tensors import Graph, Node

    Floats = NDArray[np.float32]

_BYTE_TOP = 255
_MOST_WIDTH = 2**16
"""Channels in and out of a linear layer: the kernels add as many products of bytes in 32 bits."""
_MOST_POSITIONS = 2**13
"""A text's attention weights share 18 bits (kernels/attention16.inc): more are too coarse."""


@dataclass(frozen=True, slots=True)
class Linear:
    """`weight` int8 or float32 [in, out], called `name` in the graph; `bias` float32 [out].

    In int8, `scale` is float32 [out], `step` the constant scale of the input (0: one for each
    row, by its peak) and `zero` its zero point; else None, 0 and 0.
    """

    name: str
    weight: NDArray[Any]
    bias: Floats
    scale: Floats | None = None
    step: float = 0.0
    zero: int = 0


@dataclass(frozen=True, slots=True)
class Norm:
    """float32 [hidden] each. What is added back is the norm's output times `smoothing`."""

    gamma: Floats
    beta: Floats
    smoothing: Floats | None


@dataclass(frozen=True, slots=True)
class Layer:
    """`linears` in the order of running: query, key, value, output, up, down."""

    linears: tuple[Linear, ...]
    attention_norm: Norm
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class Encoder:
    """Everything that a run needs. Arrays are views of the mapped weights file, `graph.mapped`.

    `words` is int8 with `word_scale` float32 [vocabulary], or float32 without.
    """

    graph: Graph
    pooling: Literal["mean", "cls"]
    heads: int
    epsilon: float
    words: NDArray[Any]
    word_scale: Floats | None
    positions: Floats
    norm: Norm
    layers: tuple[Layer, ...]

    @property
    def hidden(self) -> int:
        return int(self.words.shape[1])

    @property
    def intermediate(self) -> int:
        return int(self.layers[0].linears[4].weight.shape[1])

    @property
    def is_quantized(self) -> bool:
        return self.word_scale is not None


def read_encoder(path: Path) -> Encoder:
    """The encoder whose pooling graph is at `path`.

    Raises NativeEngineError with the reason where the graph is not of the kind, ModelFileError
    for damaged files.
    """
    graph = read_graph(path)
    try:
        return _Walk(graph).encoder()
    # Fewer inputs, a list for a number, or no number that there is.
    except (ValueError, LookupError, TypeError, OverflowError) as why:
        raise NativeEngineError(f"it is not built as ours are ({why})") from None


class _Walk:
    """From the output back. Each method takes the name of a value and reads what made it."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._epsilons: set[float] = set()
        self._heads: set[int] = set()

    def encoder(self) -> Encoder:
        if len(self._graph.outputs) != 1:
            raise NativeEngineError(f"it has the outputs {', '.join(self._graph.outputs)}")
        pooling, read = self._pooling(self._graph.outputs[0])
        residual: str | None = None  # of the last layer nothing is added to anything
        layers: list[Layer] = []
        first_only = pooling == "cls"
        while not self._is_embedding(read):
            layer, read, residual = self._layer(read, residual, first_only=first_only)
            layers.insert(0, layer)
            first_only = False
            if len(layers) > len(self._graph.nodes):
                raise NativeEngineError("its layers go in a circle")
        norm, total = self._norm(read, residual)
        words, positions = self._two(self._node(self._past(total, "Reshape"), "Add"))
        table, scale = self._words(words)
        if not layers or len(self._epsilons) != 1 or len(self._heads) != 1:
            raise NativeEngineError("its layers are not all of one kind")
        encoder = Encoder(
            self._graph, pooling, self._heads.pop(), self._epsilons.pop(), table, scale,
            self._positions(positions), norm, tuple(layers),
        )  # fmt: skip
        _check_shapes(encoder)
        _check_numbers(encoder)
        return encoder

    def _pooling(self, output: str) -> tuple[Literal["mean", "cls"], str]:
        node = self._graph.nodes.get(output)
        if node is not None and node.operator == "Identity":
            return "cls", node.inputs[0]
        total, divisor = self._two(self._node(output, "Div"))
        count, _ = self._two(self._node(divisor, "Max"))
        mask = self._node(count, "ReduceSum", known={"keepdims"}).inputs[0]
        kept, states = self._two(self._node(self._past(total, "Squeeze"), "MatMul"))
        if self._past(kept, "Unsqueeze") != mask or self._past(mask, "Cast") != "attention_mask":
            raise NativeEngineError("its pooling is not the mean of a text's tokens")
        return "mean", self._past(states, "Reshape")

    def _is_embedding(self, read: str) -> bool:
        """Whether the norm that gives `read` is the one behind the embeddings."""
        total = self._node(read, "LayerNormalization", known=None).inputs[0]
        return total in self._graph.nodes and self._graph.nodes[total].operator == "Reshape"

    def _layer(
        self, read: str, residual: str | None, *, first_only: bool
    ) -> tuple[Layer, str, str]:
        """The layer that gives `read`; and what the one before it must give, likewise."""
        output_norm, total = self._norm(read, residual)
        expanded, residual = self._two(self._node(total, "Add"))
        down, wide = self._linear(expanded)
        gelu = self._node(wide, "Gelu", approximate="none")
        up, read = self._linear(gelu.inputs[0])
        attention_norm, total = self._norm(read, residual)
        attended, residual = self._two(self._node(total, "Add"))
        output, mixed = self._linear(attended)
        places = self._mixed(self._past(mixed, "Reshape"))
        (query, asks), (key, read), (value, valued) = (
            self._linear(self._past(place, "Reshape")) for place in places
        )
        if first_only:
            asks, residual = self._first(asks), self._first(residual)
        if not asks == read == valued:
            raise NativeEngineError("its queries, keys and values are not of the same states")
        if len({(one.step, one.zero) for one in (query, key, value)}) != 1:
            raise NativeEngineError("its queries, keys and values have scales of their own")
        linears = (query, key, value, output, up, down)
        return Layer(linears, attention_norm, output_norm), read, residual

    def _mixed(self, name: str) -> tuple[str, str, str]:
        """Queries, keys and values of an attention over each text's own tokens."""
        node = self._graph.nodes.get(name)
        if node is not None and node.operator == "MultiHeadAttention":
            node = self._node(name, "MultiHeadAttention", known={"num_heads"})
            heads = set(node.attributes.values())
            mixed, empty, lengths = node.inputs[:3], node.inputs[3:-1], node.inputs[-1]
            lengths = self._past(lengths, "Cast")
        else:
            node = self._node(name, "Attention", known={"q_num_heads", "kv_num_heads"})
            heads = set(node.attributes.values())
            mixed, empty, lengths = node.inputs[:3], node.inputs[3:-1], node.inputs[-1]
        counted = self._node(lengths, "ReduceSum", known={"keepdims"}).inputs[0]
        if any(empty) or len(heads) != 1 or len(mixed) != 3 or counted != "attention_mask":
            raise NativeEngineError("its attention is not plain self-attention")
        self._heads.add(int(heads.pop()))
        return mixed[0], mixed[1], mixed[2]

    def _norm(self, read: str, residual: str | None) -> tuple[Norm, str]:
        """The norm that gives `read`, and `residual` with or without a smoothing; its input."""
        node = self._node(read, "LayerNormalization", count=3, known={"epsilon"}, axis=-1)
        total, gamma, beta = node.inputs
        self._epsilons.add(float(node.attributes["epsilon"]))
        smoothing: Floats | None = None
        if residual not in {None, read}:
            smoothed, back = self._two(self._node(str(residual), "Mul"))
            if smoothed != read:
                raise NativeEngineError(f"its residual {residual} is not of {read}")
            smoothing = self._tensor(back)
        return Norm(self._tensor(gamma), self._tensor(beta), smoothing), total

    def _linear(self, name: str) -> tuple[Linear, str]:
        """One linear layer, and what it reads."""
        node = self._graph.nodes.get(name)
        operator = node.operator if node else ""
        if operator == "Gemm":
            x, weight, bias = self._node(name, "Gemm", count=3).inputs
            return Linear(weight, self._tensor(weight), self._tensor(bias)), x
        if operator == "MatMulIntegerToFloat":
            codes, weight, step, scale, *zeros, bias = self._node(name, operator, count=7).inputs
            x = self._codes(codes, step, zeros[0])
            taken = float(self._tensor(step))
            if taken <= 0:
                raise NativeEngineError(f"its step {step} is {taken}")
            return self._quantized(weight, scale, bias, zeros, taken), x
        scaled, bias = self._two(self._node(name, "Add"))
        product, steps = self._two(self._node(scaled, "Mul"))
        operator = "MatMulIntegerToFloat"
        codes, weight, one, scale, *zeros = self._node(product, operator, count=6).inputs
        if float(self._tensor(one)) != 1:
            raise NativeEngineError(f"its {product} counts in steps of its own")
        x = self._row_codes(codes, steps, zeros[0])
        return self._quantized(weight, scale, bias, zeros, 0.0), x

    def _quantized(
        self, weight: str, scale: str, bias: str, zeros: list[str], step: float
    ) -> Linear:
        zero, of_weight = (self._tensor(name) for name in zeros)
        if zero.dtype != "uint8" or of_weight.dtype != "int8" or int(of_weight) != 0:
            raise NativeEngineError(f"its {weight} has zero points that ours do not have")
        return Linear(
            weight, self._tensor(weight), self._tensor(bias), self._tensor(scale), step, int(zero)
        )

    def _codes(self, codes: str, step: str, zero: str) -> str:
        """What became bytes with a constant step."""
        x, by, around = self._node(codes, "QuantizeLinear", count=3).inputs
        if (by, around) != (step, zero):
            raise NativeEngineError(f"its bytes {codes} are read by another scale")
        return x

    def _row_codes(self, codes: str, steps: str, zero: str) -> str:
        """What became bytes with one step for each row: its peak over what is above `zero`."""
        x, flat, zeros = self._node(codes, "QuantizeLinear", count=3, axis=0).inputs
        around, _ = self._two(self._node(zeros, "Expand"))
        peak, part = self._two(self._node(steps, "Mul"))
        peak, least = self._two(self._node(peak, "Max"))
        reached, _ = self._two(self._node(peak, "ReduceMax", keepdims=1))
        top = _BYTE_TOP - int(self._tensor(zero))
        # As many bits as the exporter has written, whatever came of the division.
        same = abs(float(self._tensor(part)) * top - 1) < 1e-6
        small = abs(float(self._tensor(least)) - 1e-7) < 1e-12
        if (
            (self._past(flat, "Reshape"), around, reached) != (steps, zero, x)
            or not (same and small)
            or int(self._tensor(zero)) >= top
        ):
            raise NativeEngineError(f"its bytes {codes} are not scaled by the peak of their row")
        return x

    def _first(self, name: str) -> str:
        """The states of all tokens, of which `name` are each text's first."""
        states, index = self._two(self._node(name, "Gather", axis=1))
        if self._tensor(index).tolist() != 0:
            raise NativeEngineError(f"its {name} are not the first tokens' states")
        return self._past(states, "Reshape")

    def _words(self, name: str) -> tuple[NDArray[Any], Floats | None]:
        node = self._graph.nodes.get(name)
        if node is not None and node.operator == "Gather":
            return self._table(name), None
        codes, scales = self._two(self._node(name, "Mul"))
        return self._table(self._past(codes, "Cast")), self._table(scales).reshape(-1)

    def _table(self, name: str) -> NDArray[Any]:
        table, ids = self._two(self._node(name, "Gather"))
        if ids != "input_ids":
            raise NativeEngineError(f"its {name} are not looked up by token ids")
        return self._tensor(table)

    def _positions(self, name: str) -> Floats:
        table, start, end, axis = self._node(name, "Slice", count=4).inputs
        shape, *_ = self._node(end, "Slice", count=3).inputs
        places = [self._tensor(one).tolist() for one in (start, axis)]
        if places != [[0], [0]] or self._past(shape, "Shape") != "input_ids":
            raise NativeEngineError("its positions do not begin at the first token")
        return self._tensor(table)

    def _past(self, name: str, operator: str) -> str:
        """What went into the node that only changes the form of it."""
        return self._node(name, operator, known=None).inputs[0]

    def _two(self, node: Node) -> tuple[str, str]:
        if len(node.inputs) != 2:
            raise NativeEngineError(f"its {node.output} has {len(node.inputs)} inputs, not two")
        return node.inputs[0], node.inputs[1]

    def _node(
        self,
        name: str,
        operator: str,
        *,
        count: int | None = None,
        known: Container[str] | None = (),
        **expected: object,
    ) -> Node:
        """The node that gives `name`: of that operator, with `count` inputs where that is said.

        Its attributes are those `expected`, and of the `known` ones whatever they are; None for
        all.
        """
        node = self._graph.nodes.get(name)
        if node is None or node.operator != operator:
            found = f"{node.operator} gives" if node else "nothing gives"
            raise NativeEngineError(f"{found} {name!r}, where ours has {operator}")
        if count is not None and len(node.inputs) != count:
            raise NativeEngineError(f"its {name} has {len(node.inputs)} inputs, not {count}")
        given = {k: v for k, v in node.attributes.items() if known is not None and k not in known}
        if given != expected:
            raise NativeEngineError(f"its {name} ({operator}) has the attributes {given}")
        return node

    def _tensor(self, name: str) -> NDArray[Any]:
        if name not in self._graph.tensors:
            raise NativeEngineError(f"its {name} is no constant")
        return self._graph.tensors[name]


def _check_shapes(encoder: Encoder) -> None:
    """Every tensor as large as the kernels will read it, and of their type."""
    hidden, wide = encoder.hidden, encoder.intermediate
    kind = "int8" if encoder.is_quantized else "float32"
    widths = [(hidden, hidden)] * 4 + [(hidden, wide), (wide, hidden)]
    vectors: tuple[Floats | None, ...]
    tables: list[tuple[str, Any, str, tuple[int, ...]]] = [
        ("words", encoder.words, kind, (len(encoder.words), hidden)),
        ("positions", encoder.positions, "float32", (len(encoder.positions), hidden)),
    ]
    if encoder.word_scale is not None:
        tables.append(("word scales", encoder.word_scale, "float32", (len(encoder.words),)))
    norms = [encoder.norm]
    for layer in encoder.layers:
        norms += [layer.attention_norm, layer.output_norm]
        by_row = [linear.step == 0 for linear in layer.linears]
        if encoder.is_quantized and by_row != [False] * 5 + [True]:
            raise NativeEngineError("its inputs are scaled by row where ours are not")
        for linear, shape in zip(layer.linears, widths, strict=True):
            if (linear.scale is not None) != encoder.is_quantized:
                raise NativeEngineError("it is float32 in part, and int8 in part")
            tables.append((linear.name, linear.weight, kind, shape))
            vectors = (linear.bias, linear.scale)
            tables += [(linear.name, v, "float32", (shape[1],)) for v in vectors if v is not None]
    for norm in norms:
        vectors = (norm.gamma, norm.beta, norm.smoothing)
        tables += [("norm", v, "float32", (hidden,)) for v in vectors if v is not None]
    for name, array, dtype, expected in tables:
        if array.dtype != dtype or array.shape != expected:
            raise NativeEngineError(
                f"its {name} is {array.dtype} {list(array.shape)}, not {dtype} {list(expected)}"
            )
    if encoder.heads < 1 or hidden % encoder.heads:
        raise NativeEngineError(f"its {encoder.heads} heads do not share {hidden} channels evenly")


def _check_numbers(encoder: Encoder) -> None:
    """Sizes that the kernels' sums have room for, and numbers that they can divide by."""
    import numpy as np

    widest = max(encoder.hidden, encoder.intermediate)
    if widest > _MOST_WIDTH:
        raise NativeEngineError(f"it is {widest} channels wide; the kernels take {_MOST_WIDTH}")
    count = len(encoder.positions)
    if not 0 < count <= _MOST_POSITIONS:
        raise NativeEngineError(
            f"it has {count} positions; the kernels take 1 to {_MOST_POSITIONS}"
        )
    if not 0 < encoder.epsilon < float("inf"):
        raise NativeEngineError(f"its epsilon is {encoder.epsilon}")
    limits = np.finfo(np.float32)
    for layer in encoder.layers:
        for linear in layer.linears:
            # Not of subnormal numbers: what is divided by one of them is infinite.
            if linear.step and not limits.tiny <= linear.step <= limits.max:
                raise NativeEngineError(
                    f"the step of what its {linear.name} reads is {linear.step}"
                )
