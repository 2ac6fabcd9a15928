"""Our own shape: golden cases, intent, and decode(encode(x)) == x."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec, Truncation
from cortex_embed.errors import InvalidRequestError, ModelNotFoundError, OverloadedError
from cortex_embed.wire import native
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import Dialect

DIALECT: Dialect = native


def decode(**fields: Any) -> EmbedRequest:
    return native.decode_request(json.dumps(fields).encode(), served="tiny").request


def refused(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**fields)
    return caught.value


def test_texts_alone() -> None:
    assert decode(texts=["a", "b"]) == EmbedRequest(texts=("a", "b"), param="texts")
    assert decode(texts=[]) == EmbedRequest(texts=(), param="texts")


@pytest.mark.parametrize(
    ("mode", "meant"),
    [("query", "query"), ("passage", "document"), ("document", "document"), (None, None)],
)
def test_mode_states_the_intent(mode: str | None, meant: str | None) -> None:
    assert decode(texts=["a"], mode=mode).input_type == meant


@pytest.mark.parametrize(
    ("given_truncate", "meant"),
    [(True, "end"), (False, "none"), ("end", "end"), ("start", "start"), ("none", "none")],
)
def test_truncate(given_truncate: object, meant: str) -> None:
    assert decode(texts=["a"], truncate=given_truncate).truncate == meant


def test_null_means_not_given() -> None:
    nulls = dict.fromkeys(["mode", "model", "dimensions", "normalize", "truncate"])
    assert decode(texts=["a"], **nulls) == decode(texts=["a"])


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"texts": "hello"}, "texts", 'got a string; texts must be a list of strings, such as ["'),
        ({"texts": [1]}, "texts[0]", "got a number; texts must be a list of strings"),
        ({"texts": {"text": "a"}}, "texts", "got an object; texts must be"),
        ({"texts": ["a", {"text": "b"}]}, "texts[1]", "got an object; texts must be"),
        ({}, "texts", 'texts is missing; send JSON such as {"texts": ["Hello"]}'),
        ({"texts": ["a"], "mode": "search"}, "mode", "got 'search'; mode must be \"query\""),
        ({"texts": ["a"], "mode": 1}, "mode", "got a number; mode must be"),
        ({"texts": ["a"], "truncate": 1}, "truncate", "got a number; truncate must be true"),
        ({"texts": ["a"], "truncate": "left"}, "truncate", "got 'left'"),
        ({"texts": ["a"], "normalize": "yes"}, "normalize", "got a string; normalize must be true"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], param: str, says: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert says in error.message


def test_golden_reply(result: EmbedResult) -> None:
    asked = Asked(EmbedRequest(("a", "b")))
    reply = json.loads(native.encode_response(asked, result))
    assert reply == {
        "embeddings": [[0.5, -0.25, 0.125], [0.33333334, -1e-8, 3.4e38]],
        "model": "tiny",
        "dimensions": 3,
        "usage": {"tokens": 7},
        "truncated": [{"index": 1, "tokens": 9, "used": 8}],
    }
    whole = json.loads(native.encode_response(asked, replace(result, truncations=())))
    assert "truncated" not in whole


def test_golden_errors() -> None:
    error = ModelNotFoundError("no", param="model")
    assert native.status(error) == 404
    assert json.loads(native.encode_error(error)) == {
        "error": "no",
        "code": "model_not_found",
        "error_type": "Validation",
        "param": "model",
    }
    assert native.status(OverloadedError("busy")) == 429
    assert json.loads(native.encode_error(OverloadedError("busy")))["error_type"] == "Overloaded"
    assert json.loads(native.encode_error(OverloadedError("\ud800")))["error"] == "?"


def test_token_ids_have_no_word_here() -> None:
    with pytest.raises(ValueError, match="token ids"):
        native.encode_request(Asked(EmbedRequest(texts=((1, 2),))))


@given(
    st.builds(
        EmbedRequest,
        texts=st.lists(st.text()).map(tuple),
        model=st.none() | st.text(),
        input_type=st.sampled_from([None, "query", "document"]),
        dimensions=st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
        truncate=st.sampled_from([None, "end", "start", "none"]),
        normalize=st.booleans(),
        param=st.just("texts"),
        priority=st.none(),
        single=st.just(False),
    )
)
def test_requests_round_trip(request: EmbedRequest) -> None:
    asked = Asked(request)
    assert native.decode_request(native.encode_request(asked), served="x") == asked


@given(
    rows=st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=130,
    ),
    cut=st.lists(st.integers(0, 1000), max_size=3),
)
def test_replies_round_trip(rows: list[list[float]], cut: list[int]) -> None:
    model = ModelSpec("m", "r", "0", "bert", "cls", True, 3, 8, "", "", "MIT")
    truncations = tuple(Truncation(index, 9, 8) for index in cut)
    result = EmbedResult(np.array(rows, dtype=np.float32), 5, model, truncations)
    answer = native.decode_response(native.encode_response(Asked(EmbedRequest(("a",))), result))
    np.testing.assert_array_equal(answer.vectors, result.vectors)
    assert (answer.model, answer.tokens, answer.truncations) == ("m", 5, truncations)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"embeddings": []}', b'{"embeddings": [[1], [1, 2]]}', b"\xff"]
)
def test_what_is_not_a_reply_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        native.decode_response(body)
