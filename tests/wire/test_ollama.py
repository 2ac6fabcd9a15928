"""Ollama's two embedding formats: golden cases, the ping, and decode(encode(x)) == x."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.domain import EmbedRequest, EmbedResult, ModelSpec, Timings, Truncation
from cortex_embed.errors import (
    TOO_LONG,
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
from cortex_embed.wire.dialect import Asked
from cortex_embed.wire.ollama import EMBED, EMBEDDINGS, ERRORS, OllamaError

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import Dialect, ErrorDialect

BOTH: list[Dialect] = [EMBED, EMBEDDINGS]
FAMILY: ErrorDialect = ERRORS
EXAMPLES = {EMBED: '{"model": "tiny", "input": "Hello"}', EMBEDDINGS: '{"model": "tiny", "prompt'}


def decode(dialect: Dialect = EMBED, **fields: Any) -> EmbedRequest:
    asked = dialect.decode_request(json.dumps(fields).encode(), served="tiny")
    assert asked == Asked(asked.request)
    return asked.request


def refused(dialect: Dialect = EMBED, **fields: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        decode(dialect, **fields)
    return caught.value


@pytest.mark.parametrize(
    ("given_input", "texts", "single"),
    [
        ("hello", ("hello",), True),
        (["hello"], ("hello",), False),
        (["a", ""], ("a", ""), False),
        ("", (), False),
        ([], (), False),
        (None, (), False),
    ],
)
def test_every_kind_of_input(given_input: object, texts: tuple[str, ...], single: bool) -> None:
    expected = EmbedRequest(texts=texts, model="m", param="input", single=single)
    assert decode(model="m", input=given_input) == expected


def test_missing_texts_are_a_ping() -> None:
    assert decode(model="m").texts == ()
    assert decode(EMBEDDINGS, model="m").texts == ()
    assert decode(EMBEDDINGS, model="m", prompt=None).texts == ()
    assert decode(EMBEDDINGS, model="m", prompt="").texts == ()


def test_prompt() -> None:
    expected = EmbedRequest(texts=("hello",), model="m", param="prompt", single=True)
    assert decode(EMBEDDINGS, model="m", prompt="hello") == expected


@pytest.mark.parametrize(("told", "meant"), [(True, "end"), (False, "none"), (None, None)])
def test_truncate(told: bool | None, meant: str | None) -> None:
    assert decode(model="m", input="a", truncate=told).truncate == meant


@pytest.mark.parametrize(("told", "meant"), [(2, 2), (0, None), (None, None), (-1, -1)])
def test_dimensions(told: int | None, meant: int | None) -> None:
    """Go clients write 0 for what was not given."""
    assert decode(model="m", input="a", dimensions=told).dimensions == meant


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("keep_alive", ["5m", "-1", "1h30m", "", -1, 0, 300, 1.5, 10**400, None])
def test_every_keep_alive_is_accepted(dialect: Dialect, keep_alive: object) -> None:
    assert decode(dialect, model="m", keep_alive=keep_alive) == decode(dialect, model="m")


@pytest.mark.parametrize("dialect", BOTH)
def test_options_nulls_and_unknown_fields(dialect: Dialect) -> None:
    bare = decode(dialect, model="m")
    options = {"num_ctx": 2048, "stop": ["a"], "deep": {"x": None}}
    assert decode(dialect, model="m", options=options) == bare
    nulls = dict.fromkeys(["input", "prompt", "truncate", "dimensions", "keep_alive", "options"])
    assert decode(dialect, model="m", raw=True, **nulls) == bare


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("model", [None, ""])
def test_model_is_required_and_the_served_one_is_named(dialect: Dialect, model: object) -> None:
    error = refused(dialect, model=model)
    assert error.param == "model"
    assert error.message == (
        'model is required; add "model": "tiny" (GET /api/tags lists the names).'
    )
    assert refused(dialect).message == error.message


@pytest.mark.parametrize(
    ("dialect", "fields", "param", "says"),
    [
        (EMBED, {"input": 5}, "input", "got a number; input must be a text or a list of texts"),
        (EMBED, {"input": ["a", 1]}, "input[1]", "input[1]: got a number; input must be a text"),
        (EMBED, {"input": [["a"]]}, "input[0]", "got a list"),
        (EMBED, {"model": 1}, "model", "got a number; model must be the name of a served model"),
        (EMBED, {"truncate": "no"}, "truncate", "got a string; truncate must be true to cut"),
        (EMBED, {"dimensions": 1.5}, "dimensions", "dimensions must be a whole number from 1 up"),
        (EMBED, {"dimensions": 10**30}, "dimensions", "number out of range"),
        (EMBED, {"keep_alive": ["5m"]}, "keep_alive", 'keep_alive must be a duration such as "5m"'),
        (EMBED, {"options": "fast"}, "options", "got a string; options must be an object"),
        (EMBEDDINGS, {"prompt": ["a"]}, "prompt", "got a list; prompt must be a text; without"),
        (EMBEDDINGS, {"options": []}, "options", "got a list; options must be an object"),
    ],
)
def test_wrong_fields(dialect: Dialect, fields: dict[str, Any], param: str, says: str) -> None:
    error = refused(dialect, **({"model": "m"} | fields))
    assert error.param == param
    assert says in error.message


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_broken_bodies_get_an_example(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"body") as caught:
        dialect.decode_request(body, served="tiny")
    assert EXAMPLES[dialect] in caught.value.message  # type: ignore[index]


def test_golden_embed_reply(result: EmbedResult) -> None:
    asked = Asked(EmbedRequest(("a", "b"), model="Tiny:latest"))
    timed = replace(result, timings=Timings(0.001, 0.002, 0.5))
    golden = {
        "model": "Tiny:latest",
        "embeddings": [[0.5, -0.25, 0.125], [0.33333334, -1e-8, 3.4e38]],
        "total_duration": 503_000_000,
        "load_duration": 0,
        "prompt_eval_count": 7,
    }
    cut = {"truncated": [{"index": 1, "tokens": 9, "used": 8}]}
    assert json.loads(EMBED.encode_response(asked, timed)) == golden | cut
    whole = replace(timed, truncations=())
    assert json.loads(EMBED.encode_response(asked, whole)) == golden


def test_golden_embeddings_reply(result: EmbedResult) -> None:
    one = replace(result, vectors=result.vectors[:1], truncations=())
    asked = Asked(EmbedRequest(("a",), model="tiny", single=True))
    assert EMBEDDINGS.encode_response(asked, one) == b'{"embedding":[0.5,-0.25,0.125]}'
    cut = replace(one, truncations=(Truncation(0, 9, 8),))
    assert json.loads(EMBEDDINGS.encode_response(asked, cut)) == {
        "embedding": [0.5, -0.25, 0.125],
        "truncated": [{"index": 0, "tokens": 9, "used": 8}],
    }


def test_golden_pings() -> None:
    asked = Asked(EmbedRequest((), model="m"))
    assert EMBED.encode_empty(asked) == b'{"model":"m","embeddings":[]}'
    assert EMBEDDINGS.encode_empty(asked) == b'{"embedding":[]}'


@pytest.mark.parametrize("dialect", [ERRORS, *BOTH])
@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InvalidRequestError("m", param="input[3]"), 400, "m"),
        (UnsupportedError("m"), 400, "m"),
        (
            InvalidRequestError("input: m", code=TOO_LONG),
            400,
            "the input length exceeds the context length: input: m",
        ),
        (
            ModelNotFoundError("Served: tiny.", name="nope"),
            404,
            'model "nope" not found, try pulling it first. Served: tiny.',
        ),
        (ModelNotFoundError("m"), 404, "m"),
        (AuthenticationError("m"), 401, "m"),
        (ForbiddenError("m"), 403, "m"),
        (RouteError("m"), 404, "m"),
        (RouteError("m", allowed=("GET",)), 405, "m"),
        (RequestTimeoutError("m"), 408, "m"),
        (PayloadTooLargeError("m"), 413, "m"),
        (
            OverloadedError("The queue is full."),
            503,
            "server busy, please try again.  maximum pending requests exceeded. The queue is full.",
        ),
        (EngineError("m"), 500, "m"),
        (EmbedError("m"), 500, "m"),
        (NotReadyError("m", phase="draining"), 503, "m"),
        (RouteError("no /\udcff here"), 404, "no /? here"),
    ],
)
def test_golden_errors(dialect: ErrorDialect, error: EmbedError, status: int, message: str) -> None:
    assert dialect.NAME == "ollama"
    assert dialect.ERROR is OllamaError
    assert dialect.status(error) == status
    assert json.loads(dialect.encode_error(error)) == {"error": message}


@st.composite
def embeds(draw: st.DrawFn) -> Asked:
    texts = draw(st.lists(st.text()))
    single = bool(texts and texts[0] and draw(st.booleans()))
    return Asked(
        EmbedRequest(
            texts=tuple(texts[:1] if single else texts),
            model=draw(st.text(min_size=1)),
            dimensions=draw(st.none() | st.integers(1, 2**31 - 1)),
            truncate=draw(st.sampled_from([None, "end", "none"])),
            param="input",
            single=single,
        )
    )


@given(embeds())
def test_requests_round_trip(asked: Asked) -> None:
    assert EMBED.decode_request(EMBED.encode_request(asked), served="x") == asked


@given(st.text(min_size=1), st.text(min_size=1))
def test_prompts_round_trip(text: str, model: str) -> None:
    asked = Asked(EmbedRequest((text,), model=model, param="prompt", single=True))
    assert EMBEDDINGS.decode_request(EMBEDDINGS.encode_request(asked), served="x") == asked


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"texts": ((1, 2),)}, "token ids"),
        ({"input_type": "query"}, "input type"),
        ({"normalize": False}, "raw vectors"),
        ({"model": None}, "name a model"),
        ({"truncate": "start"}, "cuts at the end|nothing else"),
        ({"texts": ("",)}, "one empty text|one text"),
    ],
)
def test_what_has_no_word(dialect: Dialect, change: dict[str, Any], says: str) -> None:
    request = replace(EmbedRequest(("a",), model="m", single=True), **change)
    with pytest.raises(ValueError, match=says):
        dialect.encode_request(Asked(request))


def test_what_else_has_no_word() -> None:
    request = EmbedRequest(("a",), model="m")
    with pytest.raises(ValueError, match="other numbers"):
        EMBED.encode_request(Asked(request, encoding="base64"))
    with pytest.raises(ValueError, match="other numbers"):
        EMBED.encode_request(Asked(request, dtypes=("int8",)))
    with pytest.raises(ValueError, match="0 dimensions"):
        EMBED.encode_request(Asked(replace(request, dimensions=0)))
    for changed in (replace(request, texts=("a", "b")), replace(request, dimensions=2)):
        with pytest.raises(ValueError, match="takes one text"):
            EMBEDDINGS.encode_request(Asked(changed))


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
MODEL = ModelSpec("m", "r", "0", "bert", "cls", True, 3, 8, "", "", "MIT")


@given(
    rows=st.lists(st.lists(floats, min_size=3, max_size=3), min_size=1, max_size=130),
    cut=st.lists(st.integers(0, 1000), max_size=3),
)
def test_replies_round_trip(rows: list[list[float]], cut: list[int]) -> None:
    truncations = tuple(Truncation(index, 9, 8) for index in cut)
    result = EmbedResult(np.array(rows, dtype=np.float32), 5, MODEL, truncations)
    answer = EMBED.decode_response(
        EMBED.encode_response(Asked(EmbedRequest(("a",), model="alias")), result)
    )
    np.testing.assert_array_equal(answer.vectors, result.vectors)
    assert answer.vectors.dtype == np.float32
    assert (answer.model, answer.tokens, answer.truncations) == ("alias", 5, truncations)


@given(row=st.lists(floats, min_size=1, max_size=200), cut=st.booleans())
def test_single_replies_round_trip(row: list[float], cut: bool) -> None:
    truncations = (Truncation(0, 9, 8),) if cut else ()
    result = EmbedResult(np.array([row], dtype=np.float32), 5, MODEL, truncations)
    answer = EMBEDDINGS.decode_response(
        EMBEDDINGS.encode_response(Asked(EmbedRequest(("a",), model="m")), result)
    )
    np.testing.assert_array_equal(answer.vectors, result.vectors)
    assert (answer.model, answer.tokens, answer.truncations) == (None, None, truncations)


@pytest.mark.parametrize("dialect", BOTH)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"error": "no"}',
        b'{"embedding": []}',
        b'{"model": "m", "embeddings": []}',
        b'{"model": "m", "embeddings": [[]]}',
        b'{"model": "m", "embeddings": [[1], [1, 2]]}',
        b'{"embedding": ["a"]}',
    ],
)
def test_what_is_not_a_reply_is_a_value_error(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        dialect.decode_response(body)
