"""What `bench` reads: HTTP/1.1 in any pieces, and what is not it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.commands.bench_http import Response, ResponseParser, plain, tokens_of
from tests.commands.openai_stub import body, response


@given(
    st.lists(st.tuples(st.sampled_from(["length", "chunked"]), st.binary(max_size=200))),
    st.integers(1, 50),
)
def test_responses_survive_any_split(bodies: list[tuple[str, bytes]], step: int) -> None:
    wire = b""
    for kind, content in bodies:
        if kind == "length":
            wire += response(content)
            continue
        wire += b"HTTP/1.1 100 Continue\r\n\r\n"
        wire += b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        middle = len(content) // 2
        for part in (content[:middle], content[middle:]):
            wire += b"%x;a=b\r\n%s\r\n" % (len(part), part) if part else b""
        wire += b"0\r\nTrailer: x\r\n\r\n"
    parser = ResponseParser()
    found = []
    for start in range(0, len(wire), step):
        done = parser.feed(wire[start : start + step])
        while done is not None:
            found.append(done.body)
            done = parser.feed(b"")
    assert found == [content for _, content in bodies]
    assert parser.empty


SHAPES = [
    response(b"whole"),
    response(b""),
    response(b"busy", "429 Too Many Requests"),
    response(b"alive", "200 OK", "Connection: keep-alive"),
    response(b"last", "200 OK", "Connection: close"),
    response(b"last", "200 OK", "connection: TE, Close"),
    b"HTTP/1.1 200\r\nX-A: 1\r\nCONTENT-LENGTH:  3 \r\nX-Content-Length: 9\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"after"),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
]


@pytest.mark.parametrize("wire", SHAPES)
def test_any_shape_may_be_cut_anywhere(wire: bytes) -> None:
    whole = ResponseParser().feed(wire)
    assert whole is not None
    for cut in range(len(wire)):
        parser = ResponseParser()
        assert parser.feed(wire[:cut]) is None
        assert parser.feed(wire[cut:]) == whole
        assert parser.empty
        assert plain(wire[:cut]) is None
    assert plain(wire) in (None, whole)


def test_the_usual_answer_is_read_at_once() -> None:
    alive = response(b"{}", "200 OK", "Date: now", "Connection: keep-alive", "Server: x")
    for wire in (response(b"{}"), alive):
        assert plain(wire) == Response(200, b"{}", closes=False)
        assert plain(wire + b"x") is None


def test_a_body_may_end_with_the_connection() -> None:
    parser = ResponseParser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\n\r\npart") is None
    done = parser.end()
    assert done is not None
    assert (done.body, done.closes) == (b"part", True)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        (b"SSH-2.0-x\r\n\r\n", "not an HTTP"),
        (b"HTTP/1.1 OK\r\n\r\n", "not an HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "not a length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n", "not a length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "not a length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\n", "not a length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "not a length"),
    ],
)
def test_what_is_not_http_is_an_error(wire: bytes, message: str) -> None:
    assert plain(wire) is None
    with pytest.raises(ValueError, match=message):
        ResponseParser().feed(wire)


@pytest.mark.parametrize(
    ("content", "tokens"),
    [
        (body(1, tokens=42), 42),
        (b'{"usage":{"prompt_tokens":7}}', 7),
        (b'{"usage":{"prompt_tokens":null}}', None),
        (b"{}", None),
    ],
)
def test_tokens_are_found_without_parsing(content: bytes, tokens: int | None) -> None:
    assert tokens_of(content) == tokens
