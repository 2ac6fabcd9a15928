"""The shared reply: every type and encoding, golden and back again."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec, Truncation
from cortex_embed.vectors import quantize
from cortex_embed.wire import embeddings
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.vectors import Dtype

MODEL = ModelSpec("m", "r", "0", "bert", "cls", True, 9, 8, "", "", "MIT")
VECTORS = np.array([[0.5, -0.5, 0, 1, -1, 0.1, -0.1, 0.25, -0.25]] * 2, dtype=np.float32)
VECTORS[1] *= -1


def written(**how: Any) -> list[Any]:
    asked = Asked(EmbedRequest(("a", "b")), **how)
    reply = json.loads(embeddings.encode_response(asked, EmbedResult(VECTORS, 5, MODEL)))
    assert set(reply) == {"object", "data", "model", "usage"}
    assert [item["index"] for item in reply["data"]] == [0, 1]
    return [item["embedding"] for item in reply["data"]]


def test_golden_dtypes() -> None:
    assert written(dtypes=("int8",))[0] == [64, -64, 0, 127, -127, 13, -13, 32, -32]
    assert written(dtypes=("uint8",))[0] == [192, 64, 128, 255, 1, 141, 115, 160, 96]
    assert written(dtypes=("ubinary",))[0] == [0b10110101, 0]
    assert written(dtypes=("binary",))[0] == [0b10110101 - 128, -128]
    np.testing.assert_array_equal(np.array(written()[0], np.float32), VECTORS[0])


@pytest.mark.parametrize(
    ("dtype", "numpy"),
    [("int8", "<i1"), ("uint8", "<u1"), ("binary", "<i1"), ("ubinary", "<u1"), ("float", "<f4")],
)
def test_base64_is_the_buffer_of_the_dtype(dtype: Dtype, numpy: str) -> None:
    """voyageai reads it with the numpy type of the output_dtype that it asked for."""
    for row, text in zip(
        quantize(VECTORS, dtype), written(dtypes=(dtype,), encoding="base64"), strict=True
    ):
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(text), numpy), row)


def test_several_types_are_an_object() -> None:
    (first, second) = written(dtypes=("float", "base64", "ubinary"))
    assert list(first) == ["float", "base64", "ubinary"]
    np.testing.assert_array_equal(np.array(second["float"], np.float32), VECTORS[1])
    assert base64.b64decode(second["base64"]) == VECTORS[1].astype("<f4").tobytes()
    assert second["ubinary"] == quantize(VECTORS, "ubinary")[1].tolist()


@given(
    rows=st.integers(1, 130),
    width=st.integers(1, 5),
    data=st.data(),
    encoding=st.sampled_from(["float", "base64"]),
    dtypes=st.sampled_from([(), ("float", "int8"), ("base64", "binary")]),
)
def test_replies_round_trip(
    rows: int, width: int, data: st.DataObject, encoding: str, dtypes: tuple[str, ...]
) -> None:
    """Every float32 survives both encodings, over several slices."""
    values = data.draw(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            min_size=width,
            max_size=width,
        )
    )
    vectors = np.tile(np.array(values, dtype=np.float32), (rows, 1)) * np.float32(0.5)
    asked = Asked(EmbedRequest(("a",) * rows), encoding=encoding, dtypes=dtypes)  # type: ignore[arg-type]
    cuts = tuple(Truncation(index, 9, 8) for index in range(0, rows, 7))
    result = EmbedResult(vectors, 5, MODEL, cuts)
    answer = embeddings.decode_response(embeddings.encode_response(asked, result))
    np.testing.assert_array_equal(answer.vectors, vectors)
    assert (answer.model, answer.tokens, answer.truncations) == ("m", 5, cuts)
    assert answer.vectors.dtype == np.float32


def test_replies_of_other_servers() -> None:
    """Out of order, without usage or model, with keys we do not know."""
    body = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0], "x": 1}]}
    answer = embeddings.decode_response(json.dumps(body).encode())
    assert answer.vectors.tolist() == [[1.0], [2.0]]
    assert answer.tokens is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"data": []}',
        b'{"data": [{"index": 1, "embedding": [1]}]}',
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [1]}]}',
        b'{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": [1, 2]}]}',
        b'{"data": [{"index": 0, "embedding": "A"}]}',
        b'{"data": [{"index": 0, "embedding": "AAAA"}]}',
        b'{"data": [{"index": 0, "embedding": "\xff"}]}',
        b'{"data": [{"index": 0, "embedding": {"int8": [1]}}]}',
        b'{"error": {"message": "no"}}',
    ],
)
def test_what_is_not_a_reply_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        embeddings.decode_response(body)
