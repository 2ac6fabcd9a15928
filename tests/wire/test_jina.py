"""Jina's words, and an object with a key for each type where several are asked for."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import InvalidRequestError, ModelNotFoundError, NotReadyError
from cortex_embed.wire import jina, openai
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import ClientDialect, ErrorDialect

CLIENT: ClientDialect = jina
ERRORS: ErrorDialect = jina


def decode(**fields: Any) -> Asked:
    body = {"model": "m", "input": ["a"], **fields}
    return openai.decode_request(json.dumps(body).encode(), served="tiny")


def test_golden_request() -> None:
    asked = decode(
        input=[{"text": "a"}],
        task="retrieval.passage",
        late_chunking=False,
        truncate=False,
        dimensions=256,
        embedding_type="ubinary",
        normalized=True,
    )
    expected = EmbedRequest(
        ("a",),
        model="m",
        input_type="document",
        dimensions=256,
        truncate="none",
        param="input",
    )
    assert asked == Asked(expected, dtypes=("ubinary",))
    assert asked.dialect is jina


@pytest.mark.parametrize(
    ("task", "meant"),
    [
        ("retrieval.query", "query"),
        ("retrieval.passage", "document"),
        ("text-matching", None),
        ("classification", None),
        ("separation", None),
        (None, None),
    ],
)
def test_task(task: str | None, meant: str | None) -> None:
    assert decode(task=task).request.input_type == meant


@pytest.mark.parametrize(
    ("given_types", "encoding", "dtypes"),
    [
        ("float", "float", ()),
        ("base64", "base64", ()),
        ("int8", "float", ("int8",)),
        (["binary"], "float", ("binary",)),
        (["base64", "base64"], "base64", ()),
        (["float", "base64"], "float", ("float", "base64")),
        ([], "float", ()),
        (None, "float", ()),
    ],
)
def test_embedding_type(given_types: object, encoding: str, dtypes: tuple[str, ...]) -> None:
    asked = decode(embedding_type=given_types)
    assert (asked.encoding, asked.dtypes) == (encoding, dtypes)


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"task": "retrieval"}, "task", 'got \'retrieval\'; task must be "retrieval.query", "re'),
        ({"task": "code.query"}, "task", '"separation" or "clustering"'),
        ({"late_chunking": True}, "late_chunking", "not supported: every text is embedded by its"),
        ({"embedding_type": "bit"}, "embedding_type", "got 'bit'; embedding_type must be"),
        ({"embedding_type": ["float", 1]}, "embedding_type[1]", "got a number; embedding_type"),
        ({"normalized": 1}, "normalized", "got a number; normalized must be true or false"),
        (
            {"normalized": False, "embedding_type": "int8"},
            "normalized",
            "int8 and uint8 are levels of vectors of length 1",
        ),
        (
            {"normalized": False, "embedding_type": ["float", "uint8"]},
            "normalized",
            "leave it out, or ask for float",
        ),
    ],
)
def test_wrong_fields(fields: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**fields)
    assert caught.value.param == param
    assert says in caught.value.message


def test_normalized() -> None:
    assert decode(normalized=False).request.normalize is False
    assert decode(normalized=False, embedding_type="binary").dtypes == ("binary",)
    assert decode(normalized=None).request.normalize is True


def test_golden_errors() -> None:
    assert jina.status(ModelNotFoundError("no")) == 400
    assert jina.status(NotReadyError("wait", phase="loading")) == 503
    assert json.loads(jina.encode_error(ModelNotFoundError("no")))["detail"] == "no"


def test_golden_request_of_ours() -> None:
    request = EmbedRequest(
        ("a",), "m", "query", dimensions=256, truncate="end", normalize=False, single=True
    )
    assert json.loads(jina.encode_request(Asked(request, dtypes=("float", "binary")))) == {
        "input": "a",
        "model": "m",
        "task": "retrieval.query",
        "dimensions": 256,
        "truncate": True,
        "normalized": False,
        "embedding_type": ["float", "binary"],
    }


@pytest.mark.parametrize(
    "asked",
    [
        Asked(EmbedRequest(((1, 2),))),
        Asked(EmbedRequest(("a",), truncate="start")),
        Asked(EmbedRequest(("a",)), encoding="base64", dtypes=("int8",)),
    ],
)
def test_what_jina_has_no_word_for(asked: Asked) -> None:
    with pytest.raises(ValueError, match="Jina"):
        jina.encode_request(asked)


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
            normalize=st.booleans(),
            param=st.just("input"),
        ),
        encoding=st.sampled_from(["float", "base64"]),
    ),
    dtypes=st.sampled_from([(), ("binary",), ("ubinary",), ("float", "base64", "binary")]),
    single=st.booleans(),
)
def test_requests_round_trip(asked: Asked, dtypes: Any, single: bool) -> None:
    """Read by the server, which has one decoder for the path."""
    if len(asked.request.texts) == 1:
        asked = replace(asked, request=replace(asked.request, single=single))
    if asked.encoding == "float":
        asked = replace(asked, dtypes=dtypes)
    assert openai.decode_request(jina.encode_request(asked), served="x") == asked
