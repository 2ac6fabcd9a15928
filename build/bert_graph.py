"""A BERT encoder as an ONNX graph, one function per block.

    input_ids, attention_mask   int64 [batch, sequence], padded on the right
    sentence_embedding          float32 [batch, dimensions], pooled, NOT normalized

Token types are no input: they are all zero wherever a text is embedded alone, so their row is
folded into the position table. Normalizing stays outside, since a vector is shortened before
it is normalized (`cortex_embed.vectors.shape`).

Between blocks the token states are one matrix [batch * sequence, hidden]: every linear layer
is then one Gemm, whatever the batch. Only standard operators: this graph must load wherever
ONNX Runtime does, 1.23.2 included.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from cortex_embed import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import ArrayLike, NDArray
    from onnx import ModelProto, NodeProto, TensorProto

    from bert_source import BertConfig, Weights
    from cortex_embed.domain import ModelSpec

OPSET = 20  # the first with Gelu
IR_VERSION = 10  # onnxruntime 1.23.2 reads up to 11
OUTPUT = "sentence_embedding"


class GraphBuilder:
    """Nodes and initializers under construction. Every method gives the name of a value."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []

    def constant(self, name: str, values: ArrayLike, dtype: str = "float32") -> str:
        import numpy as np
        from onnx import numpy_helper

        array = np.asarray(values, dtype=dtype)
        self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def node(self, operator: str, *inputs: str, out: str, **attributes: Any) -> str:
        """Append one node with one output, named `out`."""
        return self.split(operator, *inputs, out=[out], **attributes)[0]

    def split(
        self, operator: str, *inputs: str, out: Sequence[str], **attributes: Any
    ) -> Sequence[str]:
        """Append one node with several outputs."""
        from onnx import helper

        self.nodes.append(helper.make_node(operator, inputs, out, name=out[0], **attributes))
        return out

    def linear(
        self, x: str, weight: NDArray[np.float32], bias: NDArray[np.float32], *, out: str
    ) -> str:
        """[rows, in] → [rows, out]; `weight` is [out, in], as PyTorch stores it."""
        matrix = self.constant(f"{out}.weight", weight)
        offset = self.constant(f"{out}.bias", bias)
        return self.node("Gemm", x, matrix, offset, out=out, transB=1)

    def model(self, inputs: Sequence[str], width: int) -> ModelProto:
        """The finished model: int64 inputs [batch, sequence], output float32 [batch, width]."""
        from onnx import TensorProto, helper

        graph = helper.make_graph(
            self.nodes,
            "bert",
            [
                helper.make_tensor_value_info(name, TensorProto.INT64, ["batch", "sequence"])
                for name in inputs
            ],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", width])],
            self.initializers,
        )
        return helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="cortex-embed",
            producer_version=__version__,
        )


class Bert:
    """The blocks of one encoder. Each takes and gives names of values in the graph."""

    def __init__(self, weights: Weights, config: BertConfig) -> None:
        self.g = GraphBuilder()
        self.weights = weights
        self.config = config
        self.head_width = config.hidden // config.heads

    def prepare(self, input_ids: str, attention_mask: str) -> None:
        """Values that several blocks share: shapes, the mask as numbers, and as a bias."""
        import numpy as np

        g, c = self.g, self.config
        lowest = g.constant("lowest", np.finfo(np.float32).min)
        one = g.constant("one", 1.0)
        heads = g.constant("qkv_heads", [3 * c.heads, self.head_width], "int64")
        hidden = g.constant("hidden", [c.hidden], "int64")

        shape = g.node("Shape", input_ids, out="shape")
        self.heads_shape = g.node("Concat", shape, heads, out="heads_shape", axis=0)
        self.states_shape = g.node("Concat", shape, hidden, out="states_shape", axis=0)
        self.length = g.node("Shape", input_ids, out="length", start=1, end=2)
        self.rows_shape = g.constant("rows_shape", [-1, c.hidden], "int64")

        # 1 for a token, 0 for padding; then 0 and the lowest number, which softmax makes 0.
        self.kept = g.node("Cast", attention_mask, out="kept", to=1)
        padding = g.node("Sub", one, self.kept, out="padding")
        bias = g.node("Mul", padding, lowest, out="padding_bias")
        axes = g.constant("heads_and_rows", [1, 2], "int64")
        self.score_bias = g.node("Unsqueeze", bias, axes, out="score_bias")

    def embeddings(self, input_ids: str) -> str:
        """Token ids [batch, sequence] → token states [batch * sequence, hidden]."""
        g, c, name = self.g, self.config, "embeddings"
        words = self.weights.take(f"{name}.word_embeddings.weight", c.vocab_size, c.hidden)
        positions = self.weights.take(f"{name}.position_embeddings.weight", c.positions, c.hidden)
        types = self.weights.take(f"{name}.token_type_embeddings.weight", c.types, c.hidden)

        word_table = g.constant(f"{name}.words.weight", words)
        position_table = g.constant(f"{name}.positions.weight", positions + types[0])
        zero = g.constant("zero", [0], "int64")
        word = g.node("Gather", word_table, input_ids, out=f"{name}.words")
        position = g.node("Slice", position_table, zero, self.length, out=f"{name}.positions")
        total = g.node("Add", word, position, out=f"{name}.sum")
        rows = g.node("Reshape", total, self.rows_shape, out=f"{name}.rows")
        return self.layer_norm(rows, "embeddings.LayerNorm")

    def layer(self, x: str, index: int, *, first_only: bool) -> str:
        """One encoder layer. `first_only` gives [batch, hidden], the first token's states."""
        g, name = self.g, f"encoder.layer.{index}"
        attended = self.attention(x, f"{name}.attention", first_only=first_only)
        before = self.first_rows(x, out=f"{name}.first") if first_only else x
        x = g.node("Add", attended, before, out=f"{name}.attention.residual")
        x = self.layer_norm(x, f"{name}.attention.output.LayerNorm")
        expanded = self.feed_forward(x, name)
        x = g.node("Add", expanded, x, out=f"{name}.residual")
        return self.layer_norm(x, f"{name}.output.LayerNorm")

    def attention(self, x: str, name: str, *, first_only: bool) -> str:
        """Multi-head self-attention and its output projection."""
        g = self.g
        weight, bias = self.fused_qkv(f"{name}.self")
        qkv = g.linear(x, weight, bias, out=f"{name}.qkv")
        qkv = g.node("Reshape", qkv, self.heads_shape, out=f"{name}.qkv_heads")
        qkv = g.node("Transpose", qkv, out=f"{name}.qkv_by_head", perm=[0, 2, 1, 3])
        parts = [f"{name}.query", f"{name}.key", f"{name}.value"]
        query, key, value = g.split("Split", qkv, out=parts, axis=1, num_outputs=3)
        if first_only:
            query = self.first_query(query, out=f"{name}.first_query")

        key = g.node("Transpose", key, out=f"{name}.key_transposed", perm=[0, 1, 3, 2])
        scores = g.node("MatMul", query, key, out=f"{name}.scores")
        scores = g.node("Add", scores, self.score_bias, out=f"{name}.masked_scores")
        shares = g.node("Softmax", scores, out=f"{name}.shares", axis=-1)
        mixed = g.node("MatMul", shares, value, out=f"{name}.mixed")
        mixed = g.node("Transpose", mixed, out=f"{name}.mixed_by_row", perm=[0, 2, 1, 3])
        rows = g.node("Reshape", mixed, self.rows_shape, out=f"{name}.rows")
        return self.dense(rows, f"{name}.output.dense", self.config.hidden, self.config.hidden)

    def fused_qkv(self, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """One weight [3 * hidden, hidden] and bias [3 * hidden] for query, key and value.

        The 1 / sqrt(head width) of the scores is folded into the query.
        """
        import numpy as np

        hidden = self.config.hidden
        weights, biases = [], []
        for part in ("query", "key", "value"):
            scale = np.float32(1.0 / math.sqrt(self.head_width) if part == "query" else 1.0)
            weights.append(self.weights.take(f"{name}.{part}.weight", hidden, hidden) * scale)
            biases.append(self.weights.take(f"{name}.{part}.bias", hidden) * scale)
        return np.concatenate(weights), np.concatenate(biases)

    def feed_forward(self, x: str, name: str) -> str:
        """hidden → intermediate → hidden, with the exact (erf) GELU between."""
        c = self.config
        wide = self.dense(x, f"{name}.intermediate.dense", c.intermediate, c.hidden)
        wide = self.g.node("Gelu", wide, out=f"{name}.gelu", approximate="none")
        return self.dense(wide, f"{name}.output.dense", c.hidden, c.intermediate)

    def pooling(self, x: str, kind: str) -> str:
        """Token states → one vector per text [batch, hidden]."""
        g = self.g
        if kind == "cls":  # the last layer already gave the first token's states only
            return g.node("Identity", x, out=OUTPUT)
        states = g.node("Reshape", x, self.states_shape, out="states")
        middle = g.constant("middle", [1], "int64")
        shares = g.node("Unsqueeze", self.kept, middle, out="kept_row")
        total = g.node("MatMul", shares, states, out="state_sum")
        total = g.node("Squeeze", total, middle, out="state_total")
        count = g.node("ReduceSum", self.kept, middle, out="token_count", keepdims=1)
        # The floor is sentence-transformers' own: an empty mask gives zeros, not NaN.
        floor = g.constant("count_floor", 1e-9)
        return g.node("Div", total, g.node("Max", count, floor, out="divisor"), out=OUTPUT)

    def dense(self, x: str, name: str, outputs: int, inputs: int) -> str:
        weight = self.weights.take(f"{name}.weight", outputs, inputs)
        return self.g.linear(x, weight, self.weights.take(f"{name}.bias", outputs), out=name)

    def layer_norm(self, x: str, name: str) -> str:
        g, c = self.g, self.config
        scale = g.constant(f"{name}.weight", self.weights.take(f"{name}.weight", c.hidden))
        shift = g.constant(f"{name}.bias", self.weights.take(f"{name}.bias", c.hidden))
        return g.node("LayerNormalization", x, scale, shift, out=name, epsilon=c.epsilon)

    def first_rows(self, x: str, *, out: str) -> str:
        """[batch * sequence, hidden] → the first token's row of each text [batch, hidden]."""
        g = self.g
        states = g.node("Reshape", x, self.states_shape, out=f"{out}.states")
        return g.node("Gather", states, g.constant("first", 0, "int64"), out=out, axis=1)

    def first_query(self, query: str, *, out: str) -> str:
        """[batch, heads, sequence, width] → [batch, heads, 1, width]."""
        g = self.g
        bounds = (g.constant(f"{out}.{n}", [v], "int64") for n, v in (("start", 0), ("end", 1)))
        axis = g.constant(f"{out}.axis", [2], "int64")
        return g.node("Slice", query, *bounds, axis, out=out)


def build_graph(weights: Weights, config: BertConfig, spec: ModelSpec) -> ModelProto:
    """The whole encoder in float32. Raises ModelFileError for a missing or misshapen tensor."""
    ids, mask = "input_ids", "attention_mask"
    bert = Bert(weights, config)
    bert.prepare(ids, mask)
    x = bert.embeddings(ids)
    for index in range(config.layers):
        # CLS pooling reads one row of the last layer, so only that row is computed. Exact.
        last = index == config.layers - 1
        x = bert.layer(x, index, first_only=last and spec.pooling == "cls")
    bert.pooling(x, spec.pooling)
    return bert.g.model([ids, mask], config.hidden)
