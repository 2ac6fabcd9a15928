"""OpenAI's shapes: golden cases, every kind of input, and decode(encode(x)) == x."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec
from cortex_embed.errors import (
    TOO_LONG,
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
from cortex_embed.wire import jina, openai, voyage
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
    ("given_input", "texts", "single"),
    [
        ({"text": "a"}, ("a",), True),
        ([{"text": "a"}, {"text": ""}], ("a", ""), False),
        (["a", {"text": "b", "image": None}], ("a", "b"), False),
    ],
)
def test_a_text_may_be_an_object(given_input: object, texts: object, single: bool) -> None:
    request = decode(model="m", input=given_input).request
    assert (request.texts, request.single) == (texts, single)


@pytest.mark.parametrize(
    ("given_input", "param", "says"),
    [
        (
            {"image": "https://x/y.png"},
            "input",
            "input: got an object that is no text; there are no",
        ),
        (
            [{"text": "a"}, {"image": "aGk="}],
            "input[1]",
            "input[1]: got an object that is no text; there",
        ),
        ([{"text": "a", "image": "aGk="}], "input[0]", "send strings, or {"),
        ([{"url": "x"}], "input[0]", "input[0]: got an object that is no text"),
        ([{"text": "a"}, 5], "input[1]", "input[1] is a token id but input[0] is a string"),
        ([{"text": 5}], "input[0].text", "got a number; input must be a text"),
    ],
)
def test_what_is_no_text(given_input: object, param: str, says: str) -> None:
    error = refused(model="m", input=given_input)
    assert error.param == param
    assert says in error.message


def test_a_vendor_is_known_by_fields_of_its_own() -> None:
    """Errors after decoding are then answered with that vendor's statuses."""
    assert decode(model="m", input="a").dialect is None
    for shared in ({"dimensions": 2}, {"truncate": True}, {"input_type": "query"}, {"user": "u"}):
        assert decode(model="m", input="a", **shared).dialect is None
    for own in ({"truncation": True}, {"output_dtype": "int8"}, {"output_dimension": 2}):
        assert decode(model="m", input="a", **own).dialect is voyage
    for own in ({"task": "separation"}, {"normalized": True}, {"late_chunking": False}):
        assert decode(model="m", input="a", **own).dialect is jina


@pytest.mark.parametrize(
    ("fields", "intent"),
    [
        ({"input_type": "query", "task": "retrieval.query"}, "query"),
        ({"input_type": "passage", "task": "retrieval.passage"}, "document"),
    ],
)
def test_two_fields_may_say_the_same(fields: dict[str, Any], intent: str) -> None:
    assert decode(model="m", input="a", **fields).request.input_type == intent
    agreed = decode(model="m", input="a", dimensions=2, output_dimension=2).request
    assert agreed.dimensions == 2
    both = decode(model="m", input="a", truncation=False, truncate=False).request
    assert both.truncate == "none"
    same = decode(model="m", input="a", output_dtype="int8", embedding_type=["int8"])
    assert same.dtypes == ("int8",)
    # OpenAI's clients ask for base64 unless told otherwise, and read either.
    assert decode(model="m", input="a", encoding_format="base64", embedding_type="float") == decode(
        model="m", input="a", encoding_format="base64"
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"dimensions": 2, "output_dimension": 3}, "dimensions is 2 but output_dimension is 3"),
        (
            {"input_type": "query", "task": "retrieval.passage"},
            'input_type is "query" but task is "retrieval.passage"',
        ),
        (
            {"input_type": "query", "task": "classification"},
            'input_type is "query" but task is "classification"',
        ),
        ({"truncation": True, "truncate": False}, "truncation is true but truncate is false"),
        ({"truncation": True, "truncate": "start"}, 'truncation is true but truncate is "start"'),
        (
            {"output_dtype": "int8", "embedding_type": "binary"},
            'output_dtype is "int8" but embedding_type is "binary"',
        ),
        (
            {"encoding_format": "float", "embedding_type": "base64"},
            'encoding_format is "float" but embedding_type is "base64"',
        ),
        # Read as float32 by OpenAI's clients, which ask for base64 by themselves.
        (
            {"encoding_format": "base64", "embedding_type": "int8"},
            'encoding_format is "base64" but embedding_type is "int8"',
        ),
        (
            {"encoding_format": "base64", "embedding_type": ["float", "binary"]},
            'encoding_format is "base64" but embedding_type is ["float","binary"]',
        ),
    ],
)
def test_contradictions_name_both_fields(fields: dict[str, Any], says: str) -> None:
    error = refused(model="m", input="a", **fields)
    assert error.message == f"{says}; leave one of them out."
    assert error.param == list(fields)[1]


def test_a_contradiction_is_quoted_within_bounds() -> None:
    wide = int("9" * 4000)
    assert refused(model="m", input="a", dimensions=wide, output_dimension=-wide).param
    many = refused(model="m", input="a", output_dtype="int8", embedding_type=["float"] * 9999)
    assert len(many.message) < 300


@pytest.mark.parametrize(
    ("given_truncate", "meant"),
    [(True, "end"), (False, "none"), (None, None), ("END", "end"), ("Start", "start")],
)
def test_truncate_of_jina_and_of_nim(given_truncate: object, meant: str | None) -> None:
    assert decode(model="m", input="a", truncate=given_truncate).request.truncate == meant


def test_float32_has_no_type_in_openais_words() -> None:
    with pytest.raises(ValueError, match="float32 only"):
        openai.encode_request(Asked(EmbedRequest(("a",), model="m"), dtypes=("int8",)))


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
        "truncated": [{"index": 1, "tokens": 9, "used": 8}],
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
        (InvalidRequestError("m", code=TOO_LONG), 400, "invalid_request_error", None),
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
