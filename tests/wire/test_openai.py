"""OpenAI's shapes: golden cases, every kind of input, and decode(encode(x)) == x."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec
from cortex_embed.errors import (
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
from cortex_embed.wire import openai
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import Dialect

DIALECT: Dialect = openai


def decode(**fields: Any) -> Asked:
    return openai.decode_request(json.dumps(fields).encode(), served="tiny")


def refused(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("given_input", "texts", "single"),
    [
        ("hello", ("hello",), True),
        ("", ("",), True),
        (["hello", "world"], ("hello", "world"), False),
        ([101, 7592, 102], ((101, 7592, 102),), True),
        ([[101, 102], [0]], ((101, 102), (0,)), False),
        ([[]], ((),), False),
        ([], (), False),
        ([2**31 - 1], ((2**31 - 1,),), True),
    ],
)
def test_every_kind_of_input(given_input: object, texts: object, single: bool) -> None:
    asked = decode(model="m", input=given_input)
    expected = EmbedRequest(texts=texts, model="m", param="input", single=single)  # type: ignore[arg-type]
    assert asked == Asked(expected, encoding="float")


def test_every_option() -> None:
    asked = decode(model="m", input="a", encoding_format="base64", dimensions=2, user="u")
    expected = EmbedRequest(texts=("a",), model="m", dimensions=2, param="input", single=True)
    assert asked == Asked(expected, encoding="base64", user="u")


def test_null_means_not_given() -> None:
    """voyageai sends its whole parameter list, mostly null."""
    nulls = dict.fromkeys(["encoding_format", "dimensions", "user", "input_type", "output_dtype"])
    assert decode(model="m", input=["a"], **nulls) == decode(model="m", input=["a"])


def test_intent_is_never_assumed() -> None:
    assert decode(model="m", input="a").request.input_type is None


@pytest.mark.parametrize("model", [None, ""])
def test_model_is_required_and_the_served_one_is_named(model: str | None) -> None:
    error = refused(model=model, input="a")
    assert error.param == "model"
    assert '"model": "tiny"' in error.message
    assert refused(input="a").message == error.message


@pytest.mark.parametrize(
    ("given_input", "param", "says"),
    [
        (["a", 1], "input[1]", "input[1] is a token id but input[0] is a string"),
        ([1, 2, "a"], "input[2]", "input[2] is a string but input[0] is a token id"),
        ([[1], "a"], "input[1]", "input[1] is a string but input[0] is a list of token ids"),
        ([1, [2]], "input[1]", "input[1] is a list of token ids but"),
        ([[1, "a"]], "input[0][1]", "input[0][1]: got a string; input must be"),
        ([[1, True]], "input[0][1]", "got a boolean"),
        ([[[1]]], "input[0][0]", "got a list"),
        ([-1], "input[0]", "input[0]: number out of range; input must be"),
        ([[5, 2**31]], "input[0][1]", "number out of range"),
        ([int("9" * 400)], "input[0]", "number out of range"),
    ],
)
def test_mixed_and_impossible_inputs(given_input: object, param: str, says: str) -> None:
    error = refused(model="m", input=given_input)
    assert error.param == param
    assert says in error.message


def test_missing_input_and_unknown_format() -> None:
    missing = refused(model="m")
    assert missing.param == "input"
    assert missing.message == (
        'input is missing; send JSON such as {"model": "tiny", "input": "Hello"}.'
    )
    unknown = refused(model="m", input="a", encoding_format="binary")
    assert unknown.param == "encoding_format"
    assert 'got \'binary\'; encoding_format must be "float" or "base64"' in unknown.message


def test_golden_float_reply(result: EmbedResult) -> None:
    reply = json.loads(openai.encode_response(decode(model="m", input=["a", "b"]), result))
    assert reply == {
        "object": "list",
        "data": [
            {"object": "embedding", "index": 0, "embedding": [0.5, -0.25, 0.125]},
            {"object": "embedding", "index": 1, "embedding": [0.33333334, -1e-8, 3.4e38]},
        ],
        "model": "tiny",
        "usage": {"prompt_tokens": 7, "total_tokens": 7},
    }


def test_golden_base64_reply(result: EmbedResult) -> None:
    asked = decode(model="m", input=["a", "b"], encoding_format="base64")
    reply = json.loads(openai.encode_response(asked, result))
    assert reply["data"][0]["embedding"] == "AAAAPwAAgL4AAAA+"
    for row, item in zip(result.vectors, reply["data"], strict=True):
        assert base64.b64decode(item["embedding"]) == row.astype("<f4").tobytes()


def test_a_shortened_view_is_encoded_like_a_copy(result: EmbedResult) -> None:
    cut = replace(result, vectors=result.vectors[:, :2])
    reply = json.loads(openai.encode_response(decode(model="m", input=["a", "b"]), cut))
    assert reply["data"][0]["embedding"] == [0.5, -0.25]


def test_golden_models(spec: ModelSpec) -> None:
    model: dict[str, object] = {"id": "tiny", "object": "model", "created": 1_761_500_000}
    model["owned_by"] = "cortex-embed"
    model |= {"dimensions": spec.dimensions, "max_tokens": spec.max_tokens, "fingerprint": "cx1:a"}
    model["loaded"] = True
    known = openai.about(spec, created=1_761_500_000, fingerprint="cx1:a", loaded=True)
    assert json.loads(openai.encode_model(known)) == model
    listing = json.loads(openai.encode_models([known]))
    assert listing == {"object": "list", "data": [model]}


@pytest.mark.parametrize(
    ("error", "status", "kind", "code"),
    [
        (InvalidRequestError("m", param="input[3]"), 400, "invalid_request_error", None),
        (
            InvalidRequestError("m", code="too_many_inputs"),
            400,
            "invalid_request_error",
            "too_many_inputs",
        ),
        (
            ModelNotFoundError("m", param="model"),
            404,
            "invalid_request_error",
            "model_not_found",
        ),
        (RouteError("m"), 404, "invalid_request_error", "not_found"),
        (RouteError("m", allowed=("GET",)), 405, "invalid_request_error", "method_not_allowed"),
        (RequestTimeoutError("m"), 408, "invalid_request_error", "request_timeout"),
        (PayloadTooLargeError("m"), 413, "invalid_request_error", "payload_too_large"),
        (OverloadedError("m"), 429, "rate_limit_exceeded", "rate_limit_exceeded"),
        (EngineError("m"), 500, "server_error", "engine_error"),
        (EmbedError("m"), 500, "server_error", "internal_error"),
        (NotReadyError("m", phase="loading"), 503, "server_error", "not_ready"),
    ],
)
def test_golden_errors(error: EmbedError, status: int, kind: str, code: str | None) -> None:
    assert openai.status(error) == status
    assert json.loads(openai.encode_error(error)) == {
        "error": {"message": "m", "type": kind, "param": error.param, "code": code},
        "detail": "m",
    }


def test_an_error_with_a_lone_surrogate_is_still_encoded() -> None:
    error = json.loads(openai.encode_error(RouteError("no /\udcff here")))
    assert error["detail"] == "no /? here"


texts = st.one_of(
    st.tuples(st.lists(st.text()).map(tuple), st.just(False)),
    st.tuples(st.tuples(st.text()), st.just(True)),
    st.tuples(st.lists(st.lists(st.integers(0, 2**31 - 1)).map(tuple)).map(tuple), st.just(False)),
    st.tuples(st.tuples(st.lists(st.integers(0, 2**31 - 1), min_size=1).map(tuple)), st.just(True)),
)


@st.composite
def askeds(draw: st.DrawFn) -> Asked:
    items, single = draw(texts)
    return Asked(
        EmbedRequest(
            texts=items,
            model=draw(st.text(min_size=1)),
            dimensions=draw(st.none() | st.integers(-(2**31) + 1, 2**31 - 1)),
            param="input",
            single=single,
        ),
        encoding=draw(st.sampled_from(["float", "base64"])),
        user=draw(st.none() | st.text()),
    )


@given(askeds())
def test_requests_round_trip(asked: Asked) -> None:
    assert openai.decode_request(openai.encode_request(asked), served="x") == asked


@given(
    rows=st.integers(1, 130),
    width=st.integers(1, 5),
    data=st.data(),
    encoding=st.sampled_from(["float", "base64"]),
)
def test_replies_round_trip(rows: int, width: int, data: st.DataObject, encoding: str) -> None:
    """Every float32 survives both encodings, over several slices."""
    values = data.draw(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False),
            min_size=width,
            max_size=width,
        )
    )
    vectors = np.tile(np.array(values, dtype=np.float32), (rows, 1)) * np.float32(0.5)
    model = ModelSpec("m", "r", "0", "bert", "cls", True, width, 8, "", "", "MIT")
    asked = Asked(EmbedRequest(("a",) * rows), encoding=encoding)  # type: ignore[arg-type]
    answer = openai.decode_response(openai.encode_response(asked, EmbedResult(vectors, 5, model)))
    np.testing.assert_array_equal(answer.vectors, vectors)
    assert (answer.model, answer.tokens) == ("m", 5)
    assert answer.vectors.dtype == np.float32


def test_replies_of_other_servers() -> None:
    """Out of order, without usage or model, with keys we do not know."""
    body = {"data": [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0], "x": 1}]}
    answer = openai.decode_response(json.dumps(body).encode())
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
        b'{"error": {"message": "no"}}',
    ],
)
def test_what_is_not_a_reply_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        openai.decode_response(body)
