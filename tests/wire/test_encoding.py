"""Lists are encoded in slices and read back as one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cortex_embed.vectors import quantize, to_base64
from cortex_embed.wire.encoding import (
    SLICE,
    join_slices,
    lists_of,
    rows_of,
    safe,
    strings_of,
    with_list,
)


@pytest.mark.parametrize("count", [0, 1, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE])
def test_slices_join_to_one_list(count: int) -> None:
    assert json.loads(join_slices(list(range(count)))) == list(range(count))
    matrix = np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    assert json.loads(join_slices(matrix)) == matrix.tolist()


@given(arrays(np.float32, (3, 7), elements=st.floats(width=32, allow_infinity=False)))
def test_every_finite_float32_survives(matrix: np.ndarray[tuple[int, int], np.dtype]) -> None:
    read = np.array(json.loads(join_slices(np.nan_to_num(matrix))), dtype=np.float32)
    np.testing.assert_array_equal(read, np.nan_to_num(matrix))


@pytest.mark.parametrize("head", [{}, {"object": "list"}])
@pytest.mark.parametrize("tail", [{}, {"model": "m", "usage": {"tokens": 1}}])
@pytest.mark.parametrize("rows", [[], [1, 2], list(range(SLICE + 1))], ids=len)
def test_with_list(head: dict[str, object], tail: dict[str, object], rows: list[int]) -> None:
    document = json.loads(with_list(head, "data", rows, tail))
    assert document == {**head, "data": rows, **tail}
    assert list(document) == [*head, "data", *tail]


def test_safe_and_lists() -> None:
    assert safe("ä\ud800") == "ä?"
    assert lists_of(["a", (1, 2)]) == ["a", [1, 2]]


def test_rows_in_every_form() -> None:
    vectors = np.array([[0.6, -0.8], [-1, 0]], dtype=np.float32)
    assert rows_of(vectors, "base64") == [to_base64(row) for row in vectors]
    for dtype in ("float", "int8", "uint8", "binary", "ubinary"):
        expected = quantize(vectors, dtype)
        rows = json.loads(join_slices(rows_of(vectors, dtype)))
        np.testing.assert_array_equal(np.array(rows, expected.dtype), expected)
    # orjson takes contiguous rows only, and a shortened matrix has none.
    assert json.loads(join_slices(rows_of(vectors[:, :1], "int8"))) == [[76], [-127]]


def test_strings_only() -> None:
    assert strings_of(("a", ""), "X") == ["a", ""]
    with pytest.raises(ValueError, match="X takes texts, and has no word for token ids"):
        strings_of(("a", (1,)), "X")
