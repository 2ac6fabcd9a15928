"""A BERT encoder as an ONNX graph, one method per block.

    input_ids, attention_mask   int64 [batch, sequence], padded on the right
    sentence_embedding          float32 [batch, dimensions], pooled, NOT normalized
    token_embeddings            in its stead, of a graph of token states: float32
                                [batch, sequence, dimensions], what pooling reads

Normalizing stays outside, since a vector is shortened before it is normalized
(`cortex_embed.vectors.shape`). Between blocks the token states are one matrix
[batch * sequence, hidden]: every linear layer is one multiplication, whatever the batch.

Measured on ONNX Runtime's CPU provider (`nox -s bench`): Attention of opset 24 with the
lengths as `nonpad_kv_seqlen` beats the contrib operators and the primitives; Add and
LayerNormalization beat SkipLayerNormalization; Gelu beats its fused kin. The compatible
graph is for runtimes without that operator: opset 20 and MultiHeadAttention.

Nothing here may depend on a text's neighbours: no operator reduces over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from graph_builder import CONTRIB, GraphBuilder
from recipe import INPUT_OF, Recipe, Smoothing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from bert_source import BertConfig
    from bert_weights import Encoder, Linear, Norm
    from graph_builder import Shape
    from recipe import QuantizedLinear

OPSET = 24
COMPATIBLE_OPSET = 20  # the first with Gelu
IDS, MASK, OUTPUT = "input_ids", "attention_mask", "sentence_embedding"
STATES = "token_embeddings"


@dataclass(frozen=True, slots=True)
class States:
    """Token states leaving a norm: what the next linear layers read, and what is added back.

    The two differ where the next input is smoothed; the shift is then missing from `residual`,
    and in the bias of the linear layer that it is added to.
    """

    read: str
    residual: str


class Bert:
    """The blocks of one encoder. Each takes and gives names of values in the graph."""

    def __init__(
        self, encoder: Encoder, config: BertConfig, recipe: Recipe, *, compatible: bool
    ) -> None:
        self.g = GraphBuilder()
        self.encoder = encoder
        self.config = config
        self.recipe = recipe
        self.compatible = compatible
        self.inputs: dict[str, str] = {}
        """What each quantizable input is called in the graph, for calibration."""
        self._quantized: dict[tuple[str, float, int], tuple[str, str]] = {}

    def prepare(self) -> None:
        """Values that several blocks share: shapes, and the lengths of the texts."""
        g = self.g
        self.shape = g.node("Shape", IDS, out="shape")
        self.by_text = g.node("Concat", self.shape, g.ints(-1), out="by_text", axis=0)
        self.by_row = g.ints(-1, self.config.hidden)
        self.lengths = g.node("ReduceSum", MASK, g.ints(1), out="lengths", keepdims=0)
        if self.compatible:
            self.lengths = g.node("Cast", self.lengths, out="lengths32", to=6)

    def embeddings(self) -> States:
        """Token ids [batch, sequence] → token states [batch * sequence, hidden]."""
        g = self.g
        rows = self.position_rows()
        total = g.node("Add", self.words(), rows, out="embedding_sum")
        flat = g.node("Reshape", total, self.by_row, out="embedding_rows")
        return self.norm(flat, self.encoder.norm, "embedding_norm", self.smoothing("0.attention"))

    def position_rows(self) -> str:
        """What its place adds to a token's word row, [sequence, hidden]."""
        g = self.g
        positions = g.constant("positions", self.encoder.positions)
        length = g.node("Slice", self.shape, g.ints(1), g.ints(2), out="length")
        return g.node("Slice", positions, g.ints(0), length, g.ints(0), out="position_rows")

    def words(self) -> str:
        """The word table's rows, [batch, sequence, hidden]."""
        g, table = self.g, self.recipe.words
        if table is None:
            return g.node("Gather", g.constant("words", self.encoder.words), IDS, out="word_rows")
        codes = g.node("Gather", g.constant("words.q", table.values, "int8"), IDS, out="codes")
        scale = g.node("Gather", g.constant("words.scale", table.scale), IDS, out="word_scales")
        return g.node("Mul", g.node("Cast", codes, out="codes32", to=1), scale, out="word_rows")

    def layer(self, x: States, index: int, *, first_only: bool) -> States:
        """One encoder layer. `first_only` gives [batch, hidden], the first token's states."""
        g, layer = self.g, self.encoder.layers[index]
        attended = self.attention(x.read, index, first_only=first_only)
        residual = self.first_rows(x.residual, f"{index}.first") if first_only else x.residual
        total = g.node("Add", attended, residual, out=f"{index}.attention_sum")
        up = self.smoothing(f"{index}.up")
        x = self.norm(total, layer.attention_norm, f"{index}.attention_norm", up)
        expanded = self.feed_forward(x.read, index)
        total = g.node("Add", expanded, x.residual, out=f"{index}.output_sum")
        following = self.smoothing(f"{index + 1}.attention")
        return self.norm(total, layer.output_norm, f"{index}.output_norm", following)

    def attention(self, x: str, index: int, *, first_only: bool) -> str:
        """Multi-head self-attention and its output layer, [rows, hidden]."""
        g = self.g
        key, value = (
            g.node("Reshape", self.linear(x, f"{index}.{part}"), self.by_text,
                   out=f"{index}.{part}_by_text")
            for part in ("key", "value")
        )  # fmt: skip
        rows = self.first_rows(x, f"{index}.first_read") if first_only else x
        query = self.linear(rows, f"{index}.query")
        shape = g.ints(-1, 1, self.config.hidden) if first_only else self.by_text
        query = g.node("Reshape", query, shape, out=f"{index}.query_by_text")
        query = self.placed(query, f"{index}.query_placed")
        key = self.placed(key, f"{index}.key_placed")
        bias = self.score_bias(first_only=first_only)
        mixed = self.mix(query, key, value, bias, out=f"{index}.mixed")
        rows = g.node("Reshape", mixed, self.by_row, out=f"{index}.mixed_rows")
        return self.linear(rows, f"{index}.output")

    def placed(self, x: str, out: str) -> str:
        """Queries or keys with their place in the text; here the embeddings already hold it."""
        return x

    def score_bias(self, *, first_only: bool) -> str:
        """What is added to every score before the softmax, [1, heads, queries, keys]; "" here."""
        return ""

    def mix(self, query: str, key: str, value: str, bias: str, *, out: str) -> str:
        """softmax(q k' / sqrt(width) + bias) v of every head over each text's own tokens."""
        heads = self.config.heads
        if self.compatible:
            inputs = [query, key, value, "", self.lengths, *([bias] if bias else [])]
            return self.g.node(
                "MultiHeadAttention", *inputs, out=out, domain=CONTRIB, num_heads=heads
            )
        inputs = [query, key, value, bias, "", "", self.lengths]
        return self.g.node("Attention", *inputs, out=out, q_num_heads=heads, kv_num_heads=heads)

    def feed_forward(self, x: str, index: int) -> str:
        """hidden → intermediate → hidden, with the exact (erf) GELU between."""
        wide = self.linear(x, f"{index}.up")
        wide = self.g.node("Gelu", wide, out=f"{index}.gelu", approximate="none")
        return self.linear(wide, f"{index}.down")

    def pooling(self, x: str, kind: str) -> str:
        """Token states → one vector per text [batch, hidden]."""
        g = self.g
        if kind == "cls":  # the last layer already gave the first token's states only
            return g.node("Identity", x, out=OUTPUT)
        states = g.node("Reshape", x, self.by_text, out="states")
        if kind == "last_token":  # padding is on the right
            count = g.node("ReduceSum", MASK, g.ints(1), out="token_count", keepdims=1)
            last = g.node("Sub", count, g.ints(1), out="last_place")
            return g.node("GatherND", states, last, out=OUTPUT, batch_dims=1)
        kept = g.node("Cast", MASK, out="kept", to=1)
        row = g.node("Unsqueeze", kept, g.ints(1), out="kept_row")
        total = g.node("MatMul", row, states, out="state_sum")
        total = g.node("Squeeze", total, g.ints(1), out="state_total")
        count = g.node("ReduceSum", kept, g.ints(1), out="token_count", keepdims=1)
        # The floor is sentence-transformers' own: an empty mask gives zeros, not NaN.
        floor = g.constant("count_floor", 1e-9)
        return g.node("Div", total, g.node("Max", count, floor, out="divisor"), out=OUTPUT)

    def linear(self, x: str, name: str) -> str:
        """[rows, in] → [rows, out], in float32 or in bytes as the recipe says."""
        index, part = name.split(".")
        self.inputs.setdefault(f"{index}.{INPUT_OF[part]}", x)
        quantized = self.recipe.linears.get(name)
        if quantized is not None:
            return self.quantized_linear(x, name, quantized)
        plain = self.encoder.layers[int(index)].linears[part]
        return self.float_linear(x, name, plain)

    def float_linear(self, x: str, name: str, linear: Linear) -> str:
        weight = self.g.constant(f"{name}.weight", linear.weight)
        bias = self.g.constant(f"{name}.bias", linear.bias)
        return self.g.node("Gemm", x, weight, bias, out=name)

    def quantized_linear(self, x: str, name: str, linear: QuantizedLinear) -> str:
        """U8 x S8 (S8 x S8 has only a scalar kernel on x64), then back to float32."""
        g = self.g
        codes, step = self.quantize(x, linear.scale, linear.zero)
        weight = g.constant(f"{name}.weight.q", linear.weight, "int8")
        scale = g.constant(f"{name}.weight.scale", linear.weight_scale)
        bias = g.constant(f"{name}.bias.q", linear.bias)
        zeros = (self.zero_point(linear.zero), g.constant("zero_s8", 0, "int8"))
        operator = "MatMulIntegerToFloat"
        if linear.scale:
            inputs = [codes, weight, step, scale, *zeros, bias]
            return g.node(operator, *inputs, out=name, domain=CONTRIB)
        inputs = [codes, weight, g.constant("one", 1.0), scale, *zeros]
        product = g.node(operator, *inputs, out=f"{name}.product", domain=CONTRIB)
        return g.node("Add", g.node("Mul", product, step, out=f"{name}.scaled"), bias, out=name)

    def quantize(self, x: str, scale: float, zero: int) -> tuple[str, str]:
        """Bytes of `x` and the step they count in; once for all layers that read `x`."""
        if (x, scale, zero) not in self._quantized:
            make = self.by_constant if scale else self.by_peak
            self._quantized[x, scale, zero] = make(x, scale, zero)
        return self._quantized[x, scale, zero]

    def by_constant(self, x: str, scale: float, zero: int) -> tuple[str, str]:
        step = self.g.constant(f"{x}.step", scale)
        codes = self.g.node("QuantizeLinear", x, step, self.zero_point(zero), out=f"{x}.codes")
        return codes, step

    def by_peak(self, x: str, _scale: float, zero: int) -> tuple[str, str]:
        """Each row by its own peak, which maps to the top code.

        Of GELU's output: what it has below zero is small (above -0.17), and `zero` leaves room.
        A `zero` in the middle is for values of either sign.
        """
        g, top = self.g, 255 - zero
        reach = x if zero < top else g.node("Abs", x, out=f"{x}.magnitude")
        peak = g.node("ReduceMax", reach, g.ints(1), out=f"{x}.peak", keepdims=1)
        peak = g.node("Max", peak, g.constant("least_peak", 1e-7), out=f"{x}.safe_peak")
        steps = g.node("Mul", peak, g.constant(f"step_{top}", 1 / top), out=f"{x}.steps")
        # One scale per row is QuantizeLinear's per-axis form: no pass to divide by it.
        flat = g.node("Reshape", steps, g.ints(-1), out=f"{x}.flat_steps")
        rows = g.node("Shape", flat, out=f"{x}.rows")
        zeros = g.node("Expand", self.zero_point(zero), rows, out=f"{x}.zeros")
        codes = g.node("QuantizeLinear", x, flat, zeros, out=f"{x}.codes", axis=0)
        return codes, steps

    def zero_point(self, zero: int) -> str:
        return self.g.constant(f"zero_{zero}", zero, "uint8")

    def smoothing(self, place: str) -> Smoothing | None:
        return self.recipe.smoothing.get(place)

    def norm(self, x: str, norm: Norm, name: str, smoothing: Smoothing | None) -> States:
        """Layer normalization; a smoothing of what follows is folded into its scale and shift."""
        g = self.g
        gamma: NDArray[np.float32] = norm.gamma
        beta: NDArray[np.float32] = norm.beta
        suffix = ""
        if smoothing is not None:
            gamma, beta = gamma / smoothing.scale, (beta - smoothing.shift) / smoothing.scale
            suffix = ".smoothed"
        scale = g.constant(f"{name}.gamma{suffix}", gamma)
        shift = g.constant(f"{name}.beta{suffix}", beta)
        read = g.node(
            "LayerNormalization", x, scale, shift, out=name, epsilon=self.config.epsilon, axis=-1
        )
        if smoothing is None:
            return States(read, read)
        back = g.constant(f"{name}.smoothing", smoothing.scale)
        return States(read, g.node("Mul", read, back, out=f"{name}.residual"))

    def first_rows(self, x: str, out: str) -> str:
        """[batch * sequence, hidden] → the first token's row of each text [batch, hidden]."""
        g = self.g
        states = g.node("Reshape", x, self.by_text, out=f"{out}.states")
        return g.node("Gather", states, g.constant("first", 0, "int64"), out=out, axis=1)


def build_graph(
    encoder: Encoder,
    config: BertConfig,
    pooling: str,
    *,
    blocks: type[Bert] = Bert,
    recipe: Recipe | None = None,
    compatible: bool = False,
    tokens: bool = False,
    inputs: dict[str, str] | None = None,
) -> ModelProto:
    """The whole encoder, of its family's `blocks`; float32 without a `recipe`.

    With `tokens`, it stops before the pooling and gives every token's state, of which those of
    the padding mean nothing. With `inputs`, it is the graph to calibrate on: every token's state
    is computed in every layer, the quantizable inputs are outputs too, and their names are put
    into `inputs`.
    """
    bert = blocks(encoder, config, recipe or Recipe(), compatible=compatible)
    bert.prepare()
    x = bert.embeddings()
    # CLS pooling reads one row of the last layer, so only that row is computed. Exact.
    prune = pooling == "cls" and inputs is None and not tokens
    for index in range(config.layers):
        x = bert.layer(x, index, first_only=prune and index == config.layers - 1)
    outputs: dict[str, Shape | None] = {OUTPUT: ["batch", config.hidden]}
    if tokens:
        bert.g.node("Reshape", x.read, bert.by_text, out=STATES)
        outputs = {STATES: ["batch", "sequence", config.hidden]}
    else:
        bert.pooling(x.read, "mean" if inputs is not None else pooling)
    if inputs is not None:
        inputs.update(bert.inputs)
        outputs |= dict.fromkeys(bert.inputs.values())
    opset = COMPATIBLE_OPSET if compatible else OPSET
    return bert.g.model([IDS, MASK], outputs, opset=opset)
