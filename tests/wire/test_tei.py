"""TEI's shapes: golden cases, intent, truncation, errors, and decode(encode(x)) == x."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec, Text
from cortex_embed.errors import (
    AuthenticationError,
    EmbedError,
    EngineError,
    ForbiddenError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    OverloadedError,
    PayloadTooLargeError,
    RequestTimeoutError,
    RouteError,
    UnsupportedError,
)
from cortex_embed.wire import tei
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import Dialect, ServerDialect

DIALECT: Dialect = tei
HALF: ServerDialect = tei.SIMILARITY
PAIR = {"source_sentence": "a", "sentences": ["b", "c"]}


def decode(**fields: Any) -> EmbedRequest:
    return tei.decode_request(json.dumps(fields).encode(), served="tiny").request


def compare(**fields: Any) -> EmbedRequest:
    return tei.SIMILARITY.decode_request(json.dumps(fields).encode(), served="tiny").request


def refused(**fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(**fields)
    return caught.value


@pytest.mark.parametrize(
    ("inputs", "texts", "single"),
    [
        ("a", ("a",), True),
        (["a"], ("a",), False),
        (["a", "b"], ("a", "b"), False),
        ([1, 2], ((1, 2),), True),
        ([[1, 2], [3]], ((1, 2), (3,)), False),
        (["a", [1, 2]], ("a", (1, 2)), False),
    ],
)
def test_inputs(inputs: object, texts: tuple[Text, ...], single: bool) -> None:
    assert decode(inputs=inputs) == EmbedRequest(texts=texts, param="inputs", single=single)


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({}, None),
        ({"truncate": None}, None),
        ({"truncate": True}, "end"),
        ({"truncate": False}, "none"),
        ({"truncation_direction": "Right"}, None),
        ({"truncation_direction": "left"}, "start"),
        ({"truncate": True, "truncation_direction": "right"}, "end"),
        ({"truncate": True, "truncation_direction": "Left"}, "start"),
        ({"truncate": False, "truncation_direction": "Left"}, "none"),
    ],
)
def test_truncation(fields: dict[str, Any], meant: str | None) -> None:
    assert decode(inputs="a", **fields).truncate == meant
    assert decode(inputs="a", parameters=fields).truncate == meant
    assert compare(inputs=PAIR, parameters=fields).truncate == meant
    assert compare(inputs=PAIR, **fields).truncate == meant


@pytest.mark.parametrize(
    ("name", "meant"),
    [("query", "query"), ("passage", "document"), ("document", "document"), (None, None)],
)
def test_prompt_name_states_the_intent(name: str | None, meant: str | None) -> None:
    assert decode(inputs="a", prompt_name=name).input_type == meant
    assert compare(inputs=PAIR, parameters={"prompt_name": name}).input_type == meant


def test_what_stands_beside_the_inputs_comes_first() -> None:
    inner = {"normalize": False, "dimensions": 2, "truncate": True, "prompt_name": "query"}
    asked = decode(inputs="a", parameters=inner)
    assert (asked.normalize, asked.dimensions, asked.truncate) == (False, 2, "end")
    outer = {"normalize": True, "dimensions": 3, "truncate": False, "prompt_name": "passage"}
    asked = decode(inputs="a", parameters=inner, **outer)
    assert (asked.normalize, asked.dimensions, asked.truncate) == (True, 3, "none")
    assert asked.input_type == "document"


def test_null_means_not_given_and_the_rest_is_ignored() -> None:
    names = ["truncate", "truncation_direction", "prompt_name", "normalize", "dimensions"]
    nulls = dict.fromkeys([*names, "parameters"])
    more = {"encoding_format": "base64", "model": "other", "options": {"wait_for_model": True}}
    assert decode(inputs="a", **nulls, **more) == decode(inputs="a")


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({}, "inputs", 'inputs is missing; send JSON such as {"inputs": ["Hello"]}'),
        ({"inputs": 5}, "inputs", "got a number; inputs must be a text, a list of texts"),
        ({"inputs": None}, "inputs", "got null"),
        ({"inputs": PAIR}, "inputs", "got an object"),
        ({"inputs": ["a", None]}, "inputs[1]", "got null"),
        ({"inputs": [["a", "b"]]}, "inputs[0][0]", "got a string"),
        ({"inputs": ["a", 5]}, "inputs[1]", "inputs[1] is a token id beside items that are none"),
        ({"inputs": [-1]}, "inputs[0]", "number out of range"),
        ({"inputs": [[1, True]]}, "inputs[0][1]", "got a boolean"),
        ({"inputs": "a", "truncate": "END"}, "truncate", "got a string; truncate must be true or"),
        ({"inputs": "a", "truncation_direction": "up"}, "truncation_direction", 'be "Left" (the'),
        (
            {"inputs": "a", "prompt_name": "s2p"},
            "prompt_name",
            "got 's2p'; prompt_name must be \"q",
        ),
        ({"inputs": "a", "normalize": 1}, "normalize", "got a number; normalize must be true"),
        ({"inputs": "a", "dimensions": "8"}, "dimensions", "a whole number from 1 up"),
        ({"inputs": "a", "dimensions": 10**30}, "dimensions", "number out of range"),
        ({"inputs": "a", "parameters": []}, "parameters", "got a list; parameters must be an obj"),
        ({"inputs": "a", "parameters": {"truncate": 1}}, "parameters.truncate", "got a number"),
    ],
)
def test_wrong_fields(fields: dict[str, Any], param: str, says: str) -> None:
    error = refused(**fields)
    assert error.param == param
    assert says in error.message
    assert tei.status(error) == 422
    assert tei.error_type(error) == "Validation"


def test_no_inputs_at_all_have_a_word_of_their_own() -> None:
    error = refused(inputs=[])
    assert tei.status(error) == 400
    assert json.loads(tei.encode_error(error)) == {
        "error": '`inputs` cannot be empty; send {"inputs": ["Hello"]}.',
        "error_type": "Empty",
    }


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (InvalidRequestError("x"), 422, "Validation"),
        (InvalidRequestError("x", code="too_many_inputs"), 422, "Validation"),
        (UnsupportedError("x"), 422, "Validation"),
        (ModelNotFoundError("x"), 404, "Validation"),
        (AuthenticationError("x"), 401, "Validation"),
        (ForbiddenError("x"), 403, "Validation"),
        (RouteError("x", allowed=("POST",)), 405, "Validation"),
        (RequestTimeoutError("x"), 408, "Validation"),
        (PayloadTooLargeError("x"), 413, "Validation"),
        (OverloadedError("x"), 429, "Overloaded"),
        (NotReadyError("x", phase="loading"), 503, "Unhealthy"),
        (EngineError("x"), 424, "Backend"),
        (EmbedError("x"), 500, "Backend"),
    ],
)
def test_golden_errors(error: EmbedError, status: int, word: str) -> None:
    assert tei.status(error) == status
    assert json.loads(tei.encode_error(error)) == {"error": "x", "error_type": word}
    msgspec.json.decode(tei.encode_error(error), type=tei.TeiError)


def test_golden_reply(result: EmbedResult) -> None:
    asked = Asked(EmbedRequest(("a", "b")))
    assert json.loads(tei.encode_response(asked, result)) == [
        [0.5, -0.25, 0.125],
        [0.33333334, -1e-8, 3.4e38],
    ]


def test_similarity_asks_for_all_texts_under_their_names() -> None:
    asked = compare(inputs=PAIR, parameters={})
    assert asked.texts == ("a", "b", "c")
    assert [asked.path(index) for index in range(3)] == [
        "inputs.source_sentence",
        "inputs.sentences[0]",
        "inputs.sentences[1]",
    ]
    assert asked.normalize


def test_golden_similarity(spec: ModelSpec) -> None:
    vectors = np.array([[0.6, 0.8, 0], [0.6, 0.8, 0], [0, 0, 1], [-0.6, -0.8, 0]], dtype=np.float32)
    reply = tei.SIMILARITY.encode_response(
        Asked(EmbedRequest(("a", "b", "c", "d"))), EmbedResult(vectors, 4, spec)
    )
    assert json.loads(reply) == [1.0, 0.0, -1.0]


@pytest.mark.parametrize(
    ("inputs", "param", "says"),
    [
        ("a", "inputs", "got a string; inputs must be an object such as {"),
        ({"source_sentence": "a"}, "inputs", "missing required field `sentences`"),
        ({"source_sentence": "a", "sentences": [1]}, "inputs.sentences[0]", "got a number"),
        ({"source_sentence": ["a"], "sentences": []}, "inputs.source_sentence", "got a list"),
        ({"source_sentence": "a", "sentences": []}, "inputs.sentences", "cannot be empty"),
    ],
)
def test_wrong_pairs(inputs: object, param: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=r".") as caught:
        compare(inputs=inputs)
    assert caught.value.param == param
    assert says in caught.value.message


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b'{"inputs": "a"}', "embed"),
        (b'\xef\xbb\xbf{"inputs": ["a"]}', "embed"),
        (b'{"inputs": null}', "embed"),
        (b'{"x": {"texts": 1}, "inputs": [1]}', "embed"),
        (b'{"inputs": {"source_sentence": 1}}', "similarity"),
        (b'{"parameters": {}, "inputs":   {}}', "similarity"),
        (b'{"texts": ["a"]}', None),
        (b'{"texts": ["a"], "inputs": "b"}', None),
        (b'{"input": "a"}', None),
        (b'{"inputs": ', "embed"),
        (rb'{"inputs": "\ud800"}', "embed"),
        (b'{"texts": ["inputs", ', None),
        (b'"inputs"', "embed"),
        (b"[1]", None),
        (b"", None),
        (b"\xff", None),
        (b'{"inputs": ' + b"[" * 100_000 + b"}", "embed"),
    ],
)
def test_the_field_tells_whose_body_it_is(body: bytes, kind: str | None) -> None:
    assert tei.kind_of(body) == kind


@pytest.mark.parametrize(
    "asked",
    [
        Asked(EmbedRequest(("a",)), encoding="base64"),
        Asked(EmbedRequest(("a",)), dtypes=("int8",)),
    ],
)
def test_there_is_no_word_for_other_numbers(asked: Asked) -> None:
    with pytest.raises(ValueError, match="nothing but float32"):
        tei.encode_request(asked)


ids = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)


@given(
    st.builds(
        EmbedRequest,
        texts=st.lists(st.text() | ids, min_size=1).map(tuple),
        model=st.none(),
        input_type=st.sampled_from([None, "query", "document"]),
        dimensions=st.none() | st.integers(-(2**31) + 1, 2**31 - 1),
        truncate=st.sampled_from([None, "end", "start", "none"]),
        normalize=st.booleans(),
        param=st.just("inputs"),
        priority=st.none(),
        single=st.just(False),
        names=st.just(()),
    )
)
def test_requests_round_trip(request: EmbedRequest) -> None:
    asked = Asked(request)
    assert tei.decode_request(tei.encode_request(asked), served="x") == asked


@given(text=st.text() | ids.filter(bool))
def test_a_bare_text_round_trips(text: Text) -> None:
    asked = Asked(EmbedRequest((text,), param="inputs", single=True))
    assert tei.decode_request(tei.encode_request(asked), served="x") == asked


@given(
    rows=st.lists(
        st.lists(
            st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3
        ),
        min_size=1,
        max_size=130,
    )
)
def test_replies_round_trip(rows: list[list[float]]) -> None:
    model = ModelSpec("m", "r", "0", "bert", "cls", True, 3, 8, "", "", "MIT")
    result = EmbedResult(np.array(rows, dtype=np.float32), 5, model)
    answer = tei.decode_response(tei.encode_response(Asked(EmbedRequest(("a",))), result))
    np.testing.assert_array_equal(answer.vectors, result.vectors)
    assert (answer.model, answer.tokens, answer.truncations) == (None, None, ())


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"[1]", b"[[1], [1, 2]]", b'[["a"]]', b"\xff"])
def test_what_is_not_a_reply_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        tei.decode_response(body)


def test_golden_info() -> None:
    info = tei.TeiInfo(
        model_id="BAAI/bge-small-en-v1.5",
        model_sha="5c38",
        model_dtype="float32",
        served_model_name="bge-small-en-v1.5",
        model_type={"embedding": {"pooling": "cls"}},
        max_concurrent_requests=512,
        max_input_length=512,
        max_batch_tokens=16384,
        max_client_batch_size=32,
        auto_truncate=True,
        tokenization_workers=2,
        version="1.9.3",
        dimensions=384,
        fingerprint="cx1:0",
    )
    assert json.loads(tei.encode_info(info)) == {
        "model_id": "BAAI/bge-small-en-v1.5",
        "model_sha": "5c38",
        "model_dtype": "float32",
        "served_model_name": "bge-small-en-v1.5",
        "model_type": {"embedding": {"pooling": "cls"}},
        "max_concurrent_requests": 512,
        "max_input_length": 512,
        "max_batch_tokens": 16384,
        "max_batch_requests": None,
        "max_client_batch_size": 32,
        "auto_truncate": True,
        "tokenization_workers": 2,
        "version": "1.9.3",
        "sha": None,
        "docker_label": None,
        "dimensions": 384,
        "fingerprint": "cx1:0",
    }
