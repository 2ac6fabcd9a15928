"""Voyage's words: what voyageai sends is understood, and what we send is what it means."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import InvalidRequestError, ModelNotFoundError, OverloadedError
from cortex_embed.wire import openai, voyage
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import ClientDialect, ErrorDialect

CLIENT: ClientDialect = voyage
ERRORS: ErrorDialect = voyage


def decode(**fields: Any) -> Asked:
    body = {"model": "m", "input": ["a"], **fields}
    return openai.decode_request(json.dumps(body).encode(), served="tiny")


def test_golden_request_of_voyageai() -> None:
    """What voyageai 0.5.0 posts for `embed(["a"], "m", "query", output_dtype="int8")`."""
    asked = decode(
        input_type="query",
        truncation=True,
        output_dtype="int8",
        output_dimension=None,
        encoding_format="base64",
    )
    expected = EmbedRequest(("a",), model="m", input_type="query", truncate="end", param="input")
    assert asked == Asked(expected, encoding="base64", dtypes=("int8",))
    assert asked.dialect is voyage


@pytest.mark.parametrize(
    ("word", "meant"),
    [("query", "query"), ("document", "document"), ("passage", "document"), (None, None)],
)
def test_input_type(word: str | None, meant: str | None) -> None:
    assert decode(input_type=word).request.input_type == meant


def test_truncation_false_refuses() -> None:
    assert decode(truncation=False).request.truncate == "none"
    assert decode(truncation=None).request.truncate is None


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"input_type": "search_query"}, "input_type", "got 'search_query'; input_type must be"),
        ({"input_type": 1}, "input_type", 'got a number; input_type must be "query", "document"'),
        ({"truncation": "yes"}, "truncation", "got a string; truncation must be true or false"),
        ({"output_dtype": "float16"}, "output_dtype", "got 'float16'; output_dtype must be"),
        ({"output_dimension": 1.5}, "output_dimension", "got a number with a fraction"),
        ({"output_dimension": 10**30}, "output_dimension", "out of range"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**fields)
    assert caught.value.param == param
    assert says in caught.value.message


def test_golden_errors() -> None:
    """voyageai raises the message of `detail`; an unknown model is a 400."""
    assert voyage.status(ModelNotFoundError("no", param="model")) == 400
    assert voyage.status(OverloadedError("busy")) == 429
    assert json.loads(voyage.encode_error(ModelNotFoundError("no", param="model"))) == {
        "error": {
            "message": "no",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        },
        "detail": "no",
    }


def test_golden_request() -> None:
    request = EmbedRequest(
        ("a", "b"), model="voyage-3", input_type="document", dimensions=256, truncate="none"
    )
    assert json.loads(voyage.encode_request(Asked(request, "base64", ("binary",)))) == {
        "input": ["a", "b"],
        "model": "voyage-3",
        "input_type": "document",
        "truncation": False,
        "output_dimension": 256,
        "output_dtype": "binary",
        "encoding_format": "base64",
    }


@pytest.mark.parametrize(
    "asked",
    [
        Asked(EmbedRequest(((1, 2),))),
        Asked(EmbedRequest(("a",), truncate="start")),
        Asked(EmbedRequest(("a",), normalize=False)),
        Asked(EmbedRequest(("a",)), dtypes=("float", "int8")),
    ],
)
def test_what_voyage_has_no_word_for(asked: Asked) -> None:
    with pytest.raises(ValueError, match="Voyage"):
        voyage.encode_request(asked)


@given(
    asked=st.builds(
        Asked,
        request=st.builds(
            EmbedRequest,
            texts=st.lists(st.text()).map(tuple),
            model=st.text(min_size=1),
            input_type=st.sampled_from([None, "query", "document"]),
            dimensions=st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
            truncate=st.sampled_from([None, "end", "none"]),
            param=st.just("input"),
        ),
        encoding=st.sampled_from(["float", "base64"]),
        dtypes=st.sampled_from([(), ("int8",), ("uint8",), ("binary",), ("ubinary",)]),
    ),
    single=st.booleans(),
)
def test_requests_round_trip(asked: Asked, single: bool) -> None:
    """Read by the server, which has one decoder for the path."""
    request = asked.request
    if request.dimensions is not None:
        request = replace(request, dimensions_param="output_dimension")
    if len(request.texts) == 1:
        request = replace(request, single=single)
    asked = replace(asked, request=request)
    assert openai.decode_request(voyage.encode_request(asked), served="x") == asked
