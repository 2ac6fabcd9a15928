from __future__ import annotations

import io
import logging

import pytest

from cortex_embed import logs
from tests.test_service import SPEC


def lines(stream: io.TextIOWrapper) -> list[str]:
    stream.seek(0)
    return stream.read().splitlines()


def stream(encoding: str = "utf-8") -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def test_a_person_can_follow_start_and_stop() -> None:
    out = stream()
    reporter = logs.Reporter(SPEC, "fp32 from /models/tiny", out)
    reporter.listening("http://127.0.0.1:1")
    reporter.loading()
    reporter.ready(0.25, "http://127.0.0.1:1")
    reporter.draining(2)
    reporter.stopped()
    header = "-H 'Content-Type: application/json'"
    body = '{"texts": ["hello world"]}'
    assert lines(out) == [
        "Listening on http://127.0.0.1:1",
        "Loading tiny (fp32 from /models/tiny) …",
        "✓ Model ready in 0.25 s: Maker/Tiny-Model, 4 dimensions, 8 tokens, on http://127.0.0.1:1",
        f"Try:  curl -s http://127.0.0.1:1/embed {header} -d '{body}'",
        "Stopping: finishing 2 request(s); press Ctrl-C again to exit at once.",
        "Stopped.",
    ]


def test_a_stream_without_a_check_mark_still_says_it() -> None:
    out = stream("ascii")
    logs.Reporter(SPEC, "fp32", out).ready(1, "http://127.0.0.1:1")
    assert lines(out)[0].startswith("OK: Model ready")


def test_a_closed_stderr_stops_nothing() -> None:
    out = stream()
    out.close()
    logs.Reporter(SPEC, "fp32", out).stopped()
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
