"""Lines in, calls out: bytes only, no process."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.errors import EmbedError, ModelFileError
from cortex_embed.wire import native, rpc


def call(line: bytes) -> rpc.Call:
    decoded = rpc.decode_line(line)
    assert isinstance(decoded, rpc.Call), decoded
    return decoded


def refusal(line: bytes) -> rpc.Refusal:
    decoded = rpc.decode_line(line)
    assert isinstance(decoded, rpc.Refusal), decoded
    return decoded


def split(stream: bytes, limit: int, step: int) -> list[bytes | rpc.Refusal]:
    splitter = rpc.Splitter(limit)
    lines: list[bytes | rpc.Refusal] = []
    for start in range(0, len(stream), step):
        lines += splitter.feed(stream[start : start + step])
    return [*lines, *splitter.finish()]


def test_params_are_the_body_of_post_embed() -> None:
    params = b'{"texts": ["a", "b"], "mode": "query", "dimensions": 2, "truncate": false}'
    decoded = call(b'{"id": "x", "method": "embed", "params": ' + params + b"}")
    assert decoded.id == "x"
    assert decoded.asked == native.decode_request(params, served="")


@pytest.mark.parametrize("method", ["info", "ping"])
def test_a_method_without_params(method: str) -> None:
    decoded = call(json.dumps({"method": method, "id": -3}).encode())
    assert (decoded.id, decoded.method, decoded.asked) == (-3, method, None)


def test_cancel_names_its_target() -> None:
    assert call(b'{"id": 2, "method": "cancel", "params": {"id": "x"}}').target == "x"
    why = refusal(b'{"id": 2, "method": "cancel", "params": {"id": 1.5}}')
    assert (why.id, why.error.param) == (2, "id")


@pytest.mark.parametrize(
    ("line", "own_id", "param", "words"),
    [
        (b"nonsense", None, None, "The line is not valid JSON"),
        (b"[1]", None, None, "The line must be a JSON object"),
        (b'{"id": 7, "method": "embed"', 7, None, "not valid JSON"),
        (b'{"method": "ping"}', None, "id", "id is missing"),
        (b'{"id": null, "method": "ping"}', None, "id", "a string or a whole number"),
        (b'{"id": true, "method": "ping"}', None, "id", "a string or a whole number"),
        (b'{"id": "' + b"x" * 300 + b'", "method": "ping"}', None, "id", "the limit is 256"),
        (b'{"id": 7}', 7, "method", "one of embed, info, ping, cancel"),
        (b'{"id": 7, "method": "dance"}', 7, "method", "'dance' is no method"),
        (b'{"id": 7, "method": "embed"}', 7, "texts", "texts is missing"),
        (b'{"id": 7, "method": "embed", "params": []}', 7, None, "must be a JSON object"),
        (b'{"id": 7, "method": "embed", "params": {"texts": [1]}}', 7, "texts[0]", "got a number"),
        (
            b'{"id": 7, "method": "embed", "params": {"texts": ["\\ud800"]}}',
            7,
            "texts[0]",
            "texts[0] contains a lone surrogate",
        ),
        (b'{"id": 7, "params": ' + b"[" * 100_000, 7, None, "nested too deeply"),
        (b'{"id": 7, "x": "\xff"}', 7, "method", "must be a string"),
        (b'{"id": 7, "method": "embed", "params": {"texts": ["\xff"]}}', 7, None, "not UTF-8"),
    ],
)
def test_a_bad_line_is_refused_under_its_id(
    line: bytes, own_id: object, param: str | None, words: str
) -> None:
    why = refusal(line)
    assert (why.id, why.error.param) == (own_id, param)
    assert words in why.error.message
    assert len(why.error.message) < 400


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_lines_do_not_depend_on_chunks(step: int) -> None:
    stream = b"\xef\xbb\xbf{}\r\n\n  \n{1}\n" + "é".encode() + b"\nlast"
    assert split(stream, 1024, step) == [b"\xef\xbb\xbf{}\r", b"{1}", "é".encode(), b"last"]


@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_a_long_line_is_skipped_under_its_id(step: int) -> None:
    long = b'{"id": 5, "method": "embed", "params": "' + b"x" * 5000 + b'"}'
    before, why, after = split(b'{"a": 1}\n' + long + b"\n{}\n", 1024, step)
    assert (before, after) == (b'{"a": 1}', b"{}")
    assert isinstance(why, rpc.Refusal)
    assert (why.id, why.error.code) == (5, "payload_too_large")
    assert f"{len(long)} bytes; the limit is 1024" in why.error.message


def test_a_long_line_is_not_kept() -> None:
    splitter = rpc.Splitter(1024)
    for _ in range(100):
        assert list(splitter.feed(b"y" * 1000)) == []
        assert sum(map(len, splitter._parts)) <= 1024
    (why,) = splitter.finish()
    assert isinstance(why, rpc.Refusal)
    assert why.id is None


def test_a_line_of_exactly_the_limit_is_read() -> None:
    assert split(b"x" * 1024 + b"\n", 1024, 100) == [b"x" * 1024]


@given(st.binary(max_size=200))
def test_no_bytes_break_it(line: bytes) -> None:
    decoded = rpc.decode_line(line)
    assert isinstance(decoded, rpc.Call | rpc.Refusal)
    if isinstance(decoded, rpc.Refusal):
        json.loads(rpc.encode_error(decoded.id, decoded.error))


@given(st.one_of(st.integers(), st.text(max_size=40).filter(lambda t: t.isprintable())))
def test_an_id_comes_back_as_it_was(own_id: int | str) -> None:
    line = json.dumps({"id": own_id, "method": "ping"}, ensure_ascii=False).encode()
    if len(line) < 200:
        answer = json.loads(rpc.encode_result(call(line).id, b"{}"))
        assert answer == {"id": own_id, "result": {}}


def test_answers_are_one_line_each() -> None:
    def parsed(line: bytes) -> Any:
        assert line.endswith(b"\n")
        assert line.count(b"\n") == 1
        return json.loads(line)

    assert parsed(rpc.encode_event("ready", model="m")) == {"event": "ready", "v": 1, "model": "m"}
    missing = ModelFileError("no\nfile \udcff")
    assert parsed(rpc.encode_failed_start(missing)) == {
        "event": "error",
        "v": 1,
        "code": "model_file",
        "message": "no\nfile ?",
        "exit_code": 3,
    }
    assert parsed(rpc.encode_error("a\nb", EmbedError("x", param="texts[0]"))) == {
        "id": "a\nb",
        "error": {"code": "internal_error", "message": "x", "param": "texts[0]"},
    }
