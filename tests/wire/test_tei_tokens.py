"""TEI's token routes: golden bodies both ways, and what is wrong with a body."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from cortex_embed.domain import EmbedRequest, Token, TokenStates
from cortex_embed.errors import InvalidRequestError
from cortex_embed.wire import tei, tei_tokens

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.domain import Text


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_embed_all_takes_what_embed_takes() -> None:
    asked = tei_tokens.decode_embed_all(
        body(inputs=["a"], truncate=True, truncation_direction="Left", prompt_name="query")
    )
    assert asked == EmbedRequest(
        ("a",), input_type="query", truncate="start", param="inputs", single=False
    )
    inner = body(inputs="a", parameters={"truncate": False, "prompt_name": "passage"})
    asked = tei_tokens.decode_embed_all(inner)
    assert (asked.truncate, asked.input_type, asked.single) == ("none", "document", True)
    assert tei_tokens.decode_embed_all(body(inputs=[[1, 2]])).texts == ((1, 2),)


@pytest.mark.parametrize(
    ("fields", "texts", "special"),
    [
        ({"inputs": "a"}, ("a",), True),
        ({"inputs": ["a", "b"], "add_special_tokens": None}, ("a", "b"), True),
        ({"inputs": ["a"], "add_special_tokens": False}, ("a",), False),
    ],
)
def test_tokenize(fields: dict[str, Any], texts: tuple[str, ...], special: bool) -> None:
    asked, wanted = tei_tokens.decode_tokenize(body(**fields))
    assert (asked.texts, wanted, asked.input_type) == (texts, special, None)
    asked, _ = tei_tokens.decode_tokenize(body(**fields, prompt_name="query"))
    assert asked.input_type == "query"


@pytest.mark.parametrize(
    ("fields", "texts", "skip"),
    [
        ({"ids": [101, 102]}, ((101, 102),), True),
        ({"ids": [[101], [102, 103]]}, ((101,), (102, 103)), True),
        ({"ids": [101], "skip_special_tokens": False}, ((101,),), False),
    ],
)
def test_decode(fields: dict[str, Any], texts: tuple[Text, ...], skip: bool) -> None:
    asked, left_out = tei_tokens.decode_decode(body(**fields))
    assert (asked.texts, left_out, asked.param) == (texts, skip, "ids")


@pytest.mark.parametrize(
    ("decode", "fields", "param"),
    [
        (tei_tokens.decode_embed_all, {}, "inputs"),
        (tei_tokens.decode_embed_all, {"inputs": "a", "prompt_name": "x"}, "prompt_name"),
        (tei_tokens.decode_tokenize, {"inputs": [1]}, "inputs[0]"),
        (
            tei_tokens.decode_tokenize,
            {"inputs": "a", "add_special_tokens": 1},
            "add_special_tokens",
        ),
        (tei_tokens.decode_tokenize, {"inputs": "a", "prompt_name": "x"}, "prompt_name"),
        (tei_tokens.decode_decode, {"ids": "a"}, "ids"),
        (tei_tokens.decode_decode, {"ids": ["a"]}, "ids[0]"),
        (tei_tokens.decode_decode, {"ids": [1, [2]]}, "ids[0]"),
        (tei_tokens.decode_decode, {"ids": [-1]}, "ids[0]"),
        (
            tei_tokens.decode_decode,
            {"ids": [1], "skip_special_tokens": "no"},
            "skip_special_tokens",
        ),
    ],
)
def test_wrong_fields(
    decode: Callable[[bytes], object], fields: dict[str, Any], param: str
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        decode(body(**fields))
    assert caught.value.param == param
    assert tei.status(caught.value) == 422


@pytest.mark.parametrize(
    ("decode", "field"),
    [
        (tei_tokens.decode_embed_all, "inputs"),
        (tei_tokens.decode_tokenize, "inputs"),
        (tei_tokens.decode_decode, "ids"),
    ],
)
def test_nothing_at_all(decode: Callable[[bytes], object], field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"`{field}` cannot be empty") as caught:
        decode(body(**{field: []}))
    assert tei.status(caught.value) == 400
    assert tei.error_type(caught.value) == "Empty"


def test_golden_states() -> None:
    padded = np.arange(12, dtype=np.float32).reshape(2, 3, 2)  # rows of one batch, as they come
    states = TokenStates((padded[0, :2], padded[1]), tokens=5)
    assert json.loads(tei_tokens.encode_states(states)) == [
        [[0, 1], [2, 3]],
        [[6, 7], [8, 9], [10, 11]],
    ]


def test_golden_tokens() -> None:
    tokens = [[Token(101, "[CLS]", special=True), Token(7592, "hello", False, 0, 5)], []]
    reply = tei_tokens.encode_tokens(tokens)
    assert json.loads(reply) == [
        [
            {"id": 101, "text": "[CLS]", "special": True, "start": None, "stop": None},
            {"id": 7592, "text": "hello", "special": False, "start": 0, "stop": 5},
        ],
        [],
    ]
    msgspec.json.decode(reply, type=list[list[tei_tokens.TeiToken]])


def test_golden_texts() -> None:
    assert json.loads(tei_tokens.encode_texts(["hello", "größe"])) == ["hello", "größe"]
