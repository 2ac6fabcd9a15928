"""Cohere's shapes, both versions: golden cases, every type, and decode(encode(x)) == x."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec, Truncation
from cortex_embed.errors import (
    AuthenticationError,
    EmbedError,
    EngineError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    PayloadTooLargeError,
    RequestTimeoutError,
    RouteError,
)
from cortex_embed.vectors import quantize
from cortex_embed.wire.cohere import V1, V2, Embed
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import Dialect

BOTH: list[Dialect] = [V1, V2]
MODEL = ModelSpec("m", "r", "0", "bert", "cls", True, 3, 8, "", "", "MIT")


def decode(dialect: Dialect, **fields: Any) -> Asked:
    body = {"model": "m", **fields}
    return dialect.decode_request(json.dumps(body).encode(), served="tiny")


def refused(dialect: Dialect, **fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(dialect, **fields)
    return caught.value


@pytest.mark.parametrize("dialect", BOTH)
def test_golden_request(dialect: Dialect) -> None:
    asked = decode(
        dialect,
        texts=["a", "b"],
        input_type="search_query",
        embedding_types=["int8", "float", "int8"],
        truncate="START",
        output_dimension=2,
        images=None,
        unknown=1,
    )
    expected = EmbedRequest(
        ("a", "b"),
        model="m",
        input_type="query",
        dimensions=2,
        truncate="start",
        param="texts",
        dimensions_param="output_dimension",
    )
    assert asked == Asked(expected, dtypes=("int8", "float"))


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("search_query", "query"),
        ("search_document", "document"),
        ("classification", None),
        ("clustering", None),
        (None, None),
    ],
)
def test_input_type(dialect: Dialect, word: str | None, meant: str | None) -> None:
    assert decode(dialect, texts=["a"], input_type=word).request.input_type == meant


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("word", "meant"), [("NONE", "none"), ("start", "start"), ("End", "end"), (None, None)]
)
def test_truncate(dialect: Dialect, word: str | None, meant: str | None) -> None:
    assert decode(dialect, texts=["a"], truncate=word).request.truncate == meant


def test_the_model_may_be_left_out_in_version_1_only() -> None:
    """`Client.embed(model=None)` is allowed; `ClientV2.embed` has to be given one."""
    body = b'{"texts": ["a"]}'
    assert V1.decode_request(body, served="tiny").request.model is None
    with pytest.raises(InvalidRequestError) as caught:
        V2.decode_request(body, served="tiny")
    assert caught.value.param == "model"
    assert '"model": "tiny"' in caught.value.message
    for dialect in BOTH:
        assert refused(dialect, model="", texts=["a"]).param == "model"


@pytest.mark.parametrize("dialect", BOTH)
def test_inputs_are_texts_as_objects(dialect: Dialect) -> None:
    inputs = [{"content": [{"type": "text", "text": text}]} for text in ("a", "")]
    request = decode(dialect, inputs=inputs, texts=None).request
    assert (request.texts, request.path(1)) == (("a", ""), "inputs[1]")


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({}, "texts", 'texts is missing; send JSON such as {"model": "tiny", "texts": ["Hello"]}'),
        ({"texts": "a"}, "texts", "got a string; texts must be a list of strings"),
        ({"texts": [1]}, "texts[0]", "got a number; texts must be a list of strings"),
        ({"images": ["data:,"]}, "images", "there are no images here"),
        ({"texts": ["a"], "input_type": "image"}, "input_type", "there are no images here"),
        ({"texts": ["a"], "input_type": "query"}, "input_type", 'must be "search_query", "sea'),
        ({"texts": ["a"], "truncate": "LEFT"}, "truncate", 'must be "NONE", "START" or "END"'),
        ({"texts": ["a"], "truncate": True}, "truncate", 'got a boolean; truncate must be "NONE"'),
        (
            {"texts": ["a"], "embedding_types": ["float", "int4"]},
            "embedding_types[1]",
            'got \'int4\'; embedding_types must be a list of some of "float", "int8"',
        ),
        ({"texts": ["a"], "embedding_types": "float"}, "embedding_types", "got a string"),
        ({"texts": ["a"], "output_dimension": 10**40}, "output_dimension", "out of range"),
        ({"texts": ["a"], "max_tokens": 5}, "max_tokens", "not supported: the model's own limit"),
        ({"texts": ["a"], "inputs": []}, "inputs", "Both texts and inputs"),
        ({"inputs": [{"content": []}]}, "inputs[0].content", "has 0 parts"),
        (
            {"inputs": [{"content": [{"type": "text", "text": "a"}] * 2}]},
            "inputs[0].content",
            "has 2 parts; a vector is of one text",
        ),
        (
            {"inputs": [{"content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "inputs[0]",
            "there are no images here",
        ),
        ({"inputs": ["a"]}, "inputs[0]", "got a string; inputs must be a list such as [{"),
    ],
)
def test_wrong_fields(dialect: Dialect, fields: dict[str, Any], param: str, says: str) -> None:
    error = refused(dialect, **fields)
    assert error.param == param
    assert says in error.message


def reply(dialect: Dialect, result: EmbedResult, **fields: Any) -> dict[str, Any]:
    asked = decode(dialect, texts=["a", "b"], **fields)
    answer: dict[str, Any] = json.loads(dialect.encode_response(asked, result))
    assert re.fullmatch("[0-9a-f-]{36}", answer.pop("id"))
    return answer


def test_golden_version_1(result: EmbedResult) -> None:
    assert reply(V1, replace(result, truncations=())) == {
        "response_type": "embeddings_floats",
        "embeddings": [[0.5, -0.25, 0.125], [0.33333334, -1e-8, 3.4e38]],
        "texts": ["a", "b"],
        "meta": {"api_version": {"version": "1"}, "billed_units": {"input_tokens": 7}},
    }
    assert reply(V1, result, embedding_types=["float"])["response_type"] == "embeddings_by_type"


def test_golden_version_2(result: EmbedResult) -> None:
    assert reply(V2, result) == {
        "response_type": "embeddings_by_type",
        "embeddings": {"float": [[0.5, -0.25, 0.125], [0.33333334, -1e-8, 3.4e38]]},
        "texts": ["a", "b"],
        "meta": {
            "api_version": {"version": "2"},
            "billed_units": {"input_tokens": 7},
            "warnings": ["texts[1] was truncated from 9 to 8 tokens"],
        },
    }


@pytest.mark.parametrize("dialect", BOTH)
def test_every_type_at_once(dialect: Dialect, result: EmbedResult) -> None:
    types = ["ubinary", "float", "base64", "int8", "uint8", "binary"]
    by_type = reply(dialect, result, embedding_types=types)["embeddings"]
    assert list(by_type) == types
    buffers = [np.frombuffer(base64.b64decode(text), "<f4") for text in by_type.pop("base64")]
    np.testing.assert_array_equal(buffers, result.vectors)
    for dtype, rows in by_type.items():
        expected = quantize(result.vectors, dtype)
        np.testing.assert_array_equal(np.array(rows, expected.dtype), expected)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidRequestError("m", param="texts[3]"), 400),
        (AuthenticationError("m"), 401),
        (ModelNotFoundError("m", param="model"), 404),
        (RouteError("m"), 404),
        (RequestTimeoutError("m"), 408),
        (PayloadTooLargeError("m"), 413),
        (OverloadedError("m"), 429),
        (EngineError("m"), 500),
        (NotReadyError("m", phase="loading"), 503),
    ],
)
def test_golden_errors(error: EmbedError, status: int) -> None:
    for dialect in BOTH:
        assert dialect.status(error) == status
        assert json.loads(dialect.encode_error(error)) == {"message": "m"}


def test_an_error_with_a_lone_surrogate_is_still_encoded() -> None:
    assert json.loads(V2.encode_error(RouteError("no /\udcff"))) == {"message": "no /?"}


def test_golden_request_of_ours() -> None:
    request = EmbedRequest(("a",), "m", "document", dimensions=256, truncate="none")
    assert json.loads(V2.encode_request(Asked(request, dtypes=("float", "base64")))) == {
        "texts": ["a"],
        "model": "m",
        "input_type": "search_document",
        "embedding_types": ["float", "base64"],
        "truncate": "NONE",
        "output_dimension": 256,
    }


@pytest.mark.parametrize(
    "asked",
    [
        Asked(EmbedRequest(((1, 2),), model="m")),
        Asked(EmbedRequest(("a",), model="m", normalize=False)),
        Asked(EmbedRequest(("a",), model="m"), encoding="base64"),
        Asked(EmbedRequest(("a",))),
    ],
)
def test_what_cohere_has_no_word_for(asked: Asked) -> None:
    with pytest.raises(ValueError, match="Cohere"):
        V2.encode_request(asked)


@given(
    version=st.sampled_from([V1, V2]),
    request=st.builds(
        EmbedRequest,
        texts=st.lists(st.text()).map(tuple),
        model=st.text(min_size=1),
        input_type=st.sampled_from([None, "query", "document"]),
        dimensions=st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
        truncate=st.sampled_from([None, "end", "start", "none"]),
        dimensions_param=st.just("output_dimension"),
    ),
    dtypes=st.lists(
        st.sampled_from(["float", "int8", "uint8", "binary", "ubinary", "base64"]), unique=True
    ),
    nameless=st.booleans(),
)
def test_requests_round_trip(
    version: Embed, request: EmbedRequest, dtypes: Any, nameless: bool
) -> None:
    if version is V1 and nameless:
        request = replace(request, model=None)
    asked = Asked(request, dtypes=tuple(dtypes))
    assert version.decode_request(version.encode_request(asked), served="x") == asked


@given(
    version=st.sampled_from([V1, V2]),
    rows=st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=130,
    ),
    dtypes=st.sampled_from([(), ("float",), ("base64",), ("int8", "base64"), ("float", "binary")]),
)
def test_replies_round_trip(version: Embed, rows: list[list[float]], dtypes: Any) -> None:
    result = EmbedResult(np.array(rows, np.float32), 5, MODEL, (Truncation(0, 9, 8),))
    asked = Asked(EmbedRequest(("a",) * len(rows)), dtypes=dtypes)
    answer = version.decode_response(version.encode_response(asked, result))
    np.testing.assert_array_equal(answer.vectors, result.vectors)
    assert answer.vectors.dtype == np.float32
    assert answer.tokens == 5


def test_replies_of_other_servers() -> None:
    answer = V2.decode_response(b'{"id": "x", "embeddings": {"float": [[1]], "int8": null}}')
    assert answer.vectors.tolist() == [[1.0]]
    assert answer.tokens is None
    meta = {
        "api_version": {"version": "1", "is_experimental": True, "is_deprecated": None},
        "billed_units": {"input_tokens": 3, "images": None},
        "warnings": None,
    }
    body = {"embeddings": [[0.5]], "texts": [], "images": None, "meta": meta}
    assert V1.decode_response(json.dumps(body).encode()).tokens == 3


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"message": "no"}',
        b'{"embeddings": []}',
        b'{"embeddings": {}}',
        b'{"embeddings": {"int8": [[1]]}}',
        b'{"embeddings": [[1], [1, 2]]}',
        b'{"embeddings": {"base64": ["AAAA"]}}',
        b'{"embeddings": [["\xff"]]}',
    ],
)
def test_what_is_not_a_reply_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        V2.decode_response(body)
