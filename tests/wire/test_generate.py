"""The shape of `/v1/embeddings/generate`: one text or several, and nothing falls back."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec, Truncation
from cortex_embed.errors import InvalidRequestError
from cortex_embed.wire import generate, native
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import Dialect

DIALECT: Dialect = generate


def decode(body: bytes) -> Asked:
    return generate.decode_request(body, served="tiny")


@pytest.mark.parametrize("more", ["", ', "use_fallback": true', ', "use_fallback": null, "x": 1'])
def test_golden_requests(more: str) -> None:
    one = decode(f'{{"text": "a", "model": null{more}}}'.encode())
    assert one == Asked(EmbedRequest(("a",), param="text", single=True))
    several = decode(f'{{"text": ["a", "b"], "model": "m"{more}}}'.encode())
    assert several == Asked(EmbedRequest(("a", "b"), model="m", param="text"))


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        (b"{}", "text", 'text is missing; send JSON such as {"text": "Hello"}'),
        (b'{"text": 1}', "text", "got a number; text must be a string or a list of strings"),
        (b'{"text": ["a", null]}', "text[1]", "got null; text must be"),
        (b'{"text": "a", "use_fallback": "no"}', "use_fallback", "must be true or false"),
    ],
)
def test_wrong_fields(body: bytes, param: str, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(body)
    assert caught.value.param == param
    assert says in caught.value.message


def test_golden_replies(result: EmbedResult) -> None:
    several = json.loads(generate.encode_response(decode(b'{"text": ["a", "b"]}'), result))
    rows = [[0.5, -0.25, 0.125], [0.33333334, -1e-8, 3.4e38]]
    assert several == {
        "embedding": rows[0],
        "embeddings": rows,
        "model": "tiny",
        "dimensions": 3,
        "usage": {"tokens": 7},
        "fallback_used": False,
        "truncated": [{"index": 1, "tokens": 9, "used": 8}],
    }
    alone = replace(result, vectors=result.vectors[:1], truncations=())
    one = json.loads(generate.encode_response(decode(b'{"text": "a"}'), alone))
    assert one == {
        "embedding": rows[0],
        "model": "tiny",
        "dimensions": 3,
        "usage": {"tokens": 7},
        "fallback_used": False,
    }


def test_errors_are_native() -> None:
    error = InvalidRequestError("m", param="text")
    assert generate.encode_error(error) == native.encode_error(error)
    assert generate.status(error) == 400


def test_token_ids_have_no_word_here() -> None:
    with pytest.raises(ValueError, match="token ids"):
        generate.encode_request(Asked(EmbedRequest(((1, 2),))))


@given(texts=st.lists(st.text()), model=st.none() | st.text(), single=st.booleans())
def test_requests_round_trip(texts: list[str], model: str | None, single: bool) -> None:
    single = single and len(texts) == 1
    asked = Asked(EmbedRequest(tuple(texts), model=model, param="text", single=single))
    assert decode(generate.encode_request(asked)) == asked


@given(
    rows=st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=70,
    ),
    single=st.booleans(),
)
def test_replies_round_trip(rows: list[list[float]], single: bool) -> None:
    rows = rows[:1] if single else rows
    model = ModelSpec("m", "r", "0", "bert", "cls", True, 3, 8, "", "", "MIT")
    result = EmbedResult(np.array(rows, np.float32), 5, model, (Truncation(0, 9, 8),))
    asked = Asked(EmbedRequest(("a",) * len(rows), param="text", single=single))
    answer = generate.decode_response(generate.encode_response(asked, result))
    np.testing.assert_array_equal(answer.vectors, result.vectors)
    assert (answer.model, answer.tokens, answer.truncations) == ("m", 5, result.truncations)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"embedding": [1]}', b"\xff"])
def test_what_is_not_a_reply_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        generate.decode_response(body)
