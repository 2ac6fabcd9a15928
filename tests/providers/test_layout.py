"""Which output of a foreign graph is the embedding, and what is never taken for one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cortex_embed.errors import ModelFileError
from cortex_embed.providers.layout import Layout, Pooling, Port, introspect

FILE = Path("model.onnx")
IDS = Port("input_ids", "tensor(int64)", ("batch", "sequence"))
MASK = Port("attention_mask", "tensor(int64)", ("batch", "sequence"))
TYPES = Port("token_type_ids", "tensor(int32)", ("batch", "sequence"))
POSITIONS = Port("position_ids", "tensor(int64)", ("batch", "sequence"))
STATES = Port("last_hidden_state", "tensor(float)", ("batch", "sequence", 4))
POOLER = Port("pooler_output", "tensor(float)", ("batch", 4))


def found(
    *outputs: Port, inputs: tuple[Port, ...] = (IDS, MASK), pooling: Pooling = "mean"
) -> Layout:
    return introspect(FILE, inputs, outputs, dimensions=4, pooling=pooling)


def vectors(name: str, *shape: int | str | None, kind: str = "tensor(float)") -> Port:
    return Port(name, kind, shape)


SENTENCE = vectors("sentence_embedding", "batch", 4)
SPARSE = vectors("sparse_vecs", "batch", "sequence", 1)


@pytest.mark.parametrize(
    ("outputs", "chosen", "pooled_by_us"),
    [
        ((STATES, POOLER), "last_hidden_state", True),
        ((POOLER, STATES), "last_hidden_state", True),
        ((STATES, SENTENCE), "sentence_embedding", False),
        ((vectors("dense_vecs", "batch", 4), SPARSE), "dense_vecs", False),
        ((vectors("whatever", "batch", "sequence", 4),), "whatever", True),
        ((vectors("only", "batch", 4, kind="tensor(float16)"),), "only", False),
        ((vectors("only", "batch", None),), "only", False),
    ],
)
def test_the_output_that_is_read(
    outputs: tuple[Port, ...], chosen: str, pooled_by_us: bool
) -> None:
    layout = found(*outputs)
    assert layout.output == chosen
    assert layout.pooling == ("mean" if pooled_by_us else None)
    assert chosen in layout.how


@pytest.mark.parametrize(
    "outputs",
    [
        (POOLER,),
        (Port("logits", "tensor(float)", ("batch", "sequence", 30522)),),
        (Port("a", "tensor(float)", ("batch", 4)), Port("b", "tensor(float)", ("batch", 4))),
        (Port("a", "tensor(float)", ("b", "s", 4)), Port("b", "tensor(float)", ("b", "s", 4))),
        (Port("ids", "tensor(int64)", ("batch", 4)),),
        (),
    ],
)
def test_what_is_not_certain_is_refused(outputs: tuple[Port, ...]) -> None:
    with pytest.raises(ModelFileError, match="no output that is certain to be the embedding"):
        found(*outputs)


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ((Port("pixel_values", "tensor(float)", ("b", 3, 224, 224)),), "it has no input_ids"),
        ((IDS, Port("task_id", "tensor(int64)", ())), "wants an input 'task_id'"),
        ((Port("input_ids", "tensor(int64)", (1, 128)),), "the fixed shape [1, 128]"),
        ((Port("input_ids", "tensor(float)", ("b", "s")),), "is of type tensor(float)"),
    ],
)
def test_inputs_that_cannot_be_fed(inputs: tuple[Port, ...], says: str) -> None:
    with pytest.raises(ModelFileError) as caught:
        found(STATES, inputs=inputs)
    assert says in caught.value.message


def test_positions_that_only_the_model_knows_are_not_made_up() -> None:
    """RoBERTa counts them from 2 on, and no padding token: from 0 on it would be another space."""

    def late(*inputs: Port) -> Layout:
        return introspect(FILE, inputs, [STATES], dimensions=4, pooling="mean", late_positions=True)

    assert late(IDS, MASK).pooling == "mean"
    with pytest.raises(ModelFileError, match="wants position_ids"):
        late(IDS, MASK, POSITIONS)


def test_every_input_is_fed() -> None:
    cache = Port("past_key_values.0.key", "tensor(float)", ("batch", 8, "past", 64))
    layout = found(STATES, inputs=(IDS, MASK, TYPES, POSITIONS, cache))
    fed = layout.feed([np.array([7, 8, 9]), np.array([5])])
    assert fed["input_ids"].tolist() == [[7, 8, 9], [5, 0, 0]]
    assert fed["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert fed["token_type_ids"].tolist() == [[0, 0, 0], [0, 0, 0]]
    assert fed["token_type_ids"].dtype == np.int32
    assert fed["position_ids"].tolist() == [[0, 1, 2], [0, 1, 2]]
    assert fed["past_key_values.0.key"].shape == (2, 8, 0, 64)


@pytest.mark.parametrize(
    ("pooling", "rows"),
    [("cls", [[0, 1], [6, 7]]), ("mean", [[2, 3], [6, 7]]), ("last_token", [[4, 5], [6, 7]])],
)
def test_a_text_is_pooled_over_its_own_tokens(pooling: Pooling, rows: list[list[float]]) -> None:
    states = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    batch = [np.array([1, 2, 3]), np.array([1])]
    layout = Layout((IDS,), "last_hidden_state", pooling)
    pooled = layout.pool(states, batch)
    assert pooled.tolist() == rows
    assert pooled.dtype == np.float32


def test_a_pooled_output_is_taken_as_it_is() -> None:
    layout = Layout((IDS,), "sentence_embedding", None)
    output = np.array([[1, 2]], dtype=np.float16)
    assert layout.pool(output, [np.array([1])]).tolist() == [[1, 2]]
