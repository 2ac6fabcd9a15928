"""What the decoder says about bodies that are not what they should be, in either dialect."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import InvalidRequestError
from cortex_embed.wire import native, openai
from cortex_embed.wire.decoding import decoder_of

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import Dialect

DEEP = 100_000


def refused(dialect: Dialect, body: bytes) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as caught:
        dialect.decode_request(body, served="tiny")
    assert caught.value.status == 400
    assert len(caught.value.message) < 500
    json.loads(dialect.encode_error(caught.value))
    return caught.value


@pytest.fixture(params=[openai, native], ids=["openai", "native"])
def dialect(request: pytest.FixtureRequest) -> Dialect:
    chosen: Dialect = request.param
    return chosen


def body(dialect: Dialect, texts: str, more: str = "") -> bytes:
    field = "input" if dialect.NAME == "openai" else "texts"
    return f'{{"model": "tiny", "{field}": {texts}{more}}}'.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (b"", "The body is empty"),
        (b" \r\n", "The body is empty"),
        (b"null", "must be a JSON object"),
        (b"[]", "not a list"),
        (b'"text"', "not a string"),
        (b"12", "not a number"),
        (b"texts=hello&mode=query", "not valid JSON: Expecting value at line 1, column 1"),
        (b'{"texts": ["a"]', "not valid JSON: Expecting ',' delimiter at line 1, column 16"),
        (b"{'texts': []}", "not valid JSON"),
        (b'{"x": NaN}', "NaN is not a JSON value"),
        (b'{"x": -Infinity}', "not a JSON value"),
        (b'\xff{"x": 1}', "not UTF-8: byte 0xff at position 0"),
        ('{"x": 1}'.encode("utf-16"), "not UTF-8: byte 0xff"),
        (b'{"x": "a\nb"}', "Invalid control character"),
        (b'{"x": ' + b"[" * DEEP + b"]" * DEEP + b"}", "nested too deeply"),
        (b'{"x": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}", "nested too deeply"),
        (b"[" * DEEP, "must be a JSON object"),
        (b"{", "not valid JSON"),
        (b"\x00", "not valid JSON"),
        (b'{"' + b"x" * 2**21, "not valid JSON: Input data was truncated"),
    ],
)
def test_body_that_is_not_a_json_object(dialect: Dialect, sent: bytes, says: str) -> None:
    error = refused(dialect, sent)
    assert says in error.message
    assert "such as {" in error.message  # the way out
    assert error.param is None


@pytest.mark.parametrize(
    ("texts", "at", "says"),
    [
        ("null", "", "got null"),
        ("12", "", "got a number"),
        ('["a", null]', "[1]", "got null"),
        ('["a", 1.5]', "[1]", "got a number with a fraction"),
        ('["a", true]', "[1]", "got a boolean"),
    ],
)
def test_texts_of_a_wrong_type_are_named_by_path(
    dialect: Dialect, texts: str, at: str, says: str
) -> None:
    error = refused(dialect, body(dialect, texts))
    field = "input" if dialect.NAME == "openai" else "texts"
    assert error.param == field + at
    assert error.message.startswith(f"{field}{at}: {says}; {field} must be ")


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ('"dimensions": true', "dimensions", "got a boolean; dimensions must be a whole number"),
        ('"dimensions": 12.5', "dimensions", "got a number with a fraction"),
        ('"dimensions": "8"', "dimensions", "got a string"),
        ('"dimensions": 1e400', "dimensions", "number out of range"),
        (f'"dimensions": {"9" * 4000}', "dimensions", "number out of range"),
        (f'"dimensions": -{"9" * 4000}', "dimensions", "number out of range"),
        (f'"dimensions": {"9" * 5000}', "dimensions", "number out of range"),
        ('"model": 1', "model", "got a number; model must be the name of a served model"),
    ],
)
def test_other_fields_of_a_wrong_type(dialect: Dialect, more: str, param: str, says: str) -> None:
    error = refused(dialect, body(dialect, '["a"]', ", " + more))
    assert error.param == param
    assert f"{param}: {says}" in error.message


@pytest.mark.parametrize(
    ("texts", "where", "code_point"),
    [
        (r'["a", "b\ud800"]', "[1]", "U+D800"),
        (r'["\udc00\ud800"]', "[0]", "U+DC00"),
        (r'["\ud800\u0041"]', "[0]", "U+D800"),
    ],
)
def test_lone_surrogates_are_found(
    dialect: Dialect, texts: str, where: str, code_point: str
) -> None:
    error = refused(dialect, body(dialect, texts))
    field = "input" if dialect.NAME == "openai" else "texts"
    assert error.param == field + where
    assert f"lone surrogate ({code_point})" in error.message


def test_broken_inside_or_after_the_texts(dialect: Dialect) -> None:
    assert "Extra data at line 1" in refused(dialect, body(dialect, '["a"]') + b" {}").message
    for raw, byte in ((b"\xed\xa0\x80", "0xed"), (b"\xc3", "0xc3"), (b"\xff", "0xff")):
        sent = body(dialect, '["@"]').replace(b"@", raw)
        assert f"not UTF-8: byte {byte} at position" in refused(dialect, sent).message


def test_lone_surrogates_elsewhere(dialect: Dialect) -> None:
    assert refused(dialect, body(dialect, '["a"]', r', "x": {"y": ["\udfff"]}')).param == "x.y[0]"
    error = refused(dialect, body(dialect, '["a"]', r', "\ud800": 1'))
    assert error.message.startswith("A key contains a lone surrogate (U+D800)")
    assert error.param is None


def test_a_surrogate_pair_is_a_character(dialect: Dialect) -> None:
    asked = dialect.decode_request(body(dialect, r'["\ud83d\ude00"]'), served="tiny")
    assert asked.request.texts == ("😀",)


def test_tolerated(dialect: Dialect) -> None:
    """A byte order mark, keys nobody knows, keys sent twice (the last wins)."""
    sent = b"\xef\xbb\xbf" + body(dialect, '["first"]', ', "extra": {"a": [1]}, "user": "u"')
    assert dialect.decode_request(sent, served="tiny").request.texts == ("first",)
    field = "input" if dialect.NAME == "openai" else "texts"
    twice = body(dialect, '["first"]', f', "{field}": ["second"]')
    assert dialect.decode_request(twice, served="tiny").request.texts == ("second",)


def test_a_long_wrong_value_is_not_repeated() -> None:
    error = refused(native, body(native, '["a"]', f', "mode": "{"secret " * 1000}"'))
    assert error.message.count("secret") < 10
    assert error.param == "mode"


def test_a_decoder_is_made_once() -> None:
    assert decoder_of(native.EmbedBody) is decoder_of(native.EmbedBody)
    assert decoder_of(native.EmbedBody).type is native.EmbedBody
