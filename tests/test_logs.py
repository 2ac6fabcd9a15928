from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator
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


MODEL = ServedModel(SPEC, 0, origin="fp32; from /models/tiny", fingerprint="cx1:a")
RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
LISTENER = Listener((), "127.0.0.1", 1)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    logger, root = logging.getLogger(logs.LOGGER), logging.getLogger()
    before = (logger.handlers, logger.propagate, logger.level, root.handlers)
    yield
    logger.handlers, logger.propagate, logger.level, root.handlers = before


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
    logs.configure(level)
    logging.getLogger("cortex_embed.something").info("a line")
    assert len(capsys.readouterr().err.splitlines()) == shown


def test_json_lines(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure("info", "json")
    log = logging.getLogger("cortex_embed.something")
    log.info("a %s", "line\nof two ✓")
    log.debug("not shown")
    log.warning("more", extra={"fields": {"request_id": "id-7", "status": 500}})
    try:
        raise KeyError("a secret text")
    except KeyError:
        log.exception("it broke")
    logging.getLogger("asyncio").warning("of another library")
    lines = capsys.readouterr().err.splitlines()
    first, more, broke, other = [json.loads(line) for line in lines]
    assert first.pop("time") == re.fullmatch(RFC_3339, json.loads(lines[0])["time"])[0]  # type: ignore[index]
    assert first == {
        "level": "info",
        "logger": "cortex_embed.something",
        "message": "a line\nof two ✓",
    }
    assert (more["level"], more["request_id"], more["status"]) == ("warning", "id-7", 500)
    assert "builtins.KeyError at" in broke["exception"]
    assert (other["logger"], other["level"]) == ("asyncio", "warning")
    assert "secret" not in str(lines)


def test_time_is_utc_in_milliseconds() -> None:
    line = logs.json_line("info", "l", "m", {}, at=1_761_500_000.0567)
    assert json.loads(line)["time"] == "2025-10-26T17:33:20.056Z"


def test_start_and_stop_as_json() -> None:
    out = stream("ascii")
    reporter = logs.Reporter(out, form="json")
    reporter.listening(LISTENER, "the-secret")
    reporter.loading(MODEL)
    reporter.ready(MODEL, 0.25)
    reporter.draining(2, "signal")
    reporter.stopped()
    reporter.failed(BindError("port 1 is in use"))
    told = [json.loads(line) for line in lines(out)]
    assert [one["event"] for one in told] == [
        *("listening", "loading", "ready", "draining", "stopped", "error")
    ]
    assert all(one["logger"] == "cortex_embed.start" for one in told)
    assert all(re.fullmatch(RFC_3339, one["time"]) for one in told)
    assert told[0]["url"] == "http://127.0.0.1:1"
    assert (told[2]["model"], told[2]["fingerprint"], told[2]["seconds"]) == ("tiny", "cx1:a", 0.25)
    assert (told[3]["in_flight"], told[3]["reason"]) == (2, "signal")
    assert (told[5]["level"], told[5]["code"], told[5]["exit_code"]) == ("error", "bind", 4)
    assert "the-secret" not in str(told)


def test_a_key_is_asked_for_and_not_shown() -> None:
    out = stream()
    reporter = logs.Reporter(out)
    reporter.listening(LISTENER, None, keyed=True)
    reporter.ready(MODEL, 1)
    assert "-H 'Authorization: Bearer TOKEN'" in lines(out)[-1]
