from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cortex_embed import vectors

floats = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
matrices = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=40), elements=floats
)


@given(matrices)
def test_rows_have_length_one_or_zero(matrix: np.ndarray) -> None:
    lengths = np.linalg.norm(vectors.l2_normalize(matrix).astype(np.float64), axis=1)
    zero = np.linalg.norm(matrix.astype(np.float64), axis=1) < 1e-12
    assert np.all(zero | (np.abs(lengths - 1) < 1e-6))


@given(matrices, st.data())
def test_a_row_is_the_same_alone_and_among_others(matrix: np.ndarray, data: st.DataObject) -> None:
    row = data.draw(st.integers(0, len(matrix) - 1))
    together = vectors.l2_normalize(matrix)[row]
    alone = vectors.l2_normalize(matrix[row : row + 1])[0]
    assert together.tobytes() == alone.tobytes()


def test_row_independence_holds_beyond_numpys_buffer() -> None:
    # 8192 elements is where numpy's buffered iteration would cut a row in two.
    matrix = np.random.RandomState(0).standard_normal((2048, 384)).astype(np.float32)
    together = vectors.l2_normalize(matrix)
    alone = np.concatenate([vectors.l2_normalize(row[np.newaxis]) for row in matrix])
    assert together.tobytes() == alone.tobytes()


@given(matrices, st.data())
def test_shape_shortens_then_normalizes(matrix: np.ndarray, data: st.DataObject) -> None:
    k = data.draw(st.integers(1, matrix.shape[1]))
    shaped = vectors.shape(matrix, dimensions=k, normalize=True)
    assert shaped.shape == (len(matrix), k)
    np.testing.assert_array_equal(shaped, vectors.l2_normalize(matrix[:, :k]))


def test_shape_without_normalizing_keeps_the_values() -> None:
    matrix = np.array([[3.0, 4.0, 5.0]], dtype=np.float32)
    np.testing.assert_array_equal(
        vectors.shape(matrix, dimensions=2, normalize=False), [[3.0, 4.0]]
    )


@given(hnp.arrays(np.float32, st.integers(0, 50), elements=floats))
def test_base64_round_trip(vector: np.ndarray) -> None:
    np.testing.assert_array_equal(vectors.from_base64(vectors.to_base64(vector)), vector)


def test_base64_is_little_endian_float32() -> None:
    # 1.0f is 00 00 80 3f in little-endian order.
    assert vectors.to_base64(np.array([1.0], dtype=np.float32)) == "AACAPw=="


def test_bad_base64_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"."):
        vectors.from_base64("not base64!")


def test_smaller_types_of_known_vectors() -> None:
    rows = np.array([[1, -1, 0, 0.5, -0.004, 2, -0.0, 1e-9, -1e-9]], dtype=np.float32)
    assert vectors.quantize(rows, "float") is rows
    levels = [127, -127, 0, 64, -1, 127, 0, 0, 0]
    assert vectors.quantize(rows, "int8").tolist() == [levels]
    assert vectors.quantize(rows, "uint8").tolist() == [[level + 128 for level in levels]]
    # 1 where x >= 0, the first dimension highest; the last byte is filled up with zeros.
    packed = [0b10110111, 0b00000000]
    assert vectors.quantize(rows, "ubinary").tolist() == [packed]
    assert vectors.quantize(rows, "binary").tolist() == [[byte - 128 for byte in packed]]


@given(matrices, st.sampled_from(["int8", "uint8", "binary", "ubinary"]))
def test_a_smaller_type_is_made_row_by_row(matrix: np.ndarray, dtype: vectors.Dtype) -> None:
    rows = vectors.l2_normalize(matrix)
    whole = vectors.quantize(rows, dtype)
    assert whole.dtype == (np.uint8 if dtype.startswith("u") else np.int8)
    for index in range(len(rows)):
        np.testing.assert_array_equal(
            vectors.quantize(rows[index : index + 1], dtype)[0], whole[index]
        )


def test_base64_of_any_type() -> None:
    import base64

    row = np.array([1, -2, 3], dtype=np.int8)
    assert base64.b64decode(vectors.to_base64(row)) == b"\x01\xfe\x03"


@given(matrices)
def test_cosines_do_not_depend_on_what_else_is_compared(matrix: np.ndarray) -> None:
    rows = vectors.l2_normalize(matrix)
    together = vectors.cosines(rows[0], rows)
    alone = np.concatenate([vectors.cosines(rows[0], row[np.newaxis]) for row in rows])
    assert together.dtype == np.float32
    assert together.tobytes() == alone.tobytes()
    np.testing.assert_allclose(together, rows @ rows[0], atol=1e-5)
