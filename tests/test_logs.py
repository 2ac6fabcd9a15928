from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed import logs
from cortex_embed.errors import BindError
from cortex_embed.server.sockets import Listener
from cortex_embed.service import ServedModel
from tests.test_service import SPEC

if TYPE_CHECKING:
    from cortex_embed.server.reporter import StopReason


def lines(stream: io.TextIOWrapper) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


def stream(encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


MODEL = ServedModel(SPEC, 0, origin="fp32; from /models/tiny")
LISTENER = Listener((), "127.0.0.1", 1)


def test_a_person_can_follow_start_and_stop() -> None:
    out = stream()
    reporter = logs.Reporter(out)
    reporter.listening(LISTENER, None)
    reporter.loading(MODEL)
    reporter.ready(MODEL, 0.25)
    reporter.draining(2, "signal")
    reporter.stopped()
    header = "-H 'Content-Type: application/json'"
    body = '{"texts": ["hello world"]}'
    assert lines(out) == [
        "Listening on http://127.0.0.1:1",
        "Loading tiny (fp32; from /models/tiny) …",
        "✓ Model ready in 0.25 s: Maker/Tiny-Model, 4 dimensions, 8 tokens, on http://127.0.0.1:1",
        f"Try:  curl -s http://127.0.0.1:1/embed {header} -d '{body}'",
        "Stopping: finishing 2 request(s); press Ctrl-C again to exit at once.",
        "Stopped.",
    ]


def test_the_curl_line_names_the_socket_and_never_the_token() -> None:
    out = stream()
    reporter = logs.Reporter(out)
    reporter.listening(Listener((), "localhost", 0, Path("/run/e.sock")), "the-secret")
    reporter.ready(MODEL, 1)
    said = "\n".join(lines(out))
    assert "Listening on /run/e.sock" in said
    assert "curl -s --unix-socket /run/e.sock http://localhost/embed" in said
    assert "-H 'Authorization: Bearer TOKEN'" in said
    assert "the-secret" not in said


@pytest.mark.parametrize(
    ("reason", "words"),
    [("parent", "is gone"), ("stdin", "stdin has ended"), ("idle", "--idle-exit")],
)
def test_why_it_stops_is_said(reason: StopReason, words: str) -> None:
    out = stream()
    logs.Reporter(out).draining(0, reason)
    assert words in lines(out)[0]


def test_a_failure_is_one_line() -> None:
    out = stream()
    logs.Reporter(out).failed(BindError("port 1 is in use"))
    assert lines(out) == ["cortex-embed: error: port 1 is in use"]


def test_a_stream_without_a_check_mark_still_says_it() -> None:
    out = stream("ascii")
    logs.Reporter(out).ready(MODEL, 1)
    assert lines(out)[0].startswith("OK: Model ready")


def test_a_closed_stderr_stops_nothing() -> None:
    out = stream()
    out.close()
    logs.Reporter(out).stopped()
    assert out.closed


@pytest.mark.parametrize(("level", "shown"), [("info", 1), ("error", 0)])
def test_the_level_is_the_least_severe_shown(
    level: str, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    logger = logging.getLogger(logs.LOGGER)
    before = (logger.handlers, logger.propagate, logger.level)
    try:
        logs.configure(level)
        logging.getLogger("cortex_embed.something").info("a line")
        assert len(capsys.readouterr().err.splitlines()) == shown
    finally:
        logger.handlers, logger.propagate, logger.level = before[0], before[1], before[2]
