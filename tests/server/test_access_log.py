"""One line a request: what is in it, and what never is."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from cortex_embed import logs

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
SECRET = "nobody-may-log-this"


async def lines(start: Start, caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """What is logged of five requests."""
    async with start(access_log=True, token=SECRET) as running:
        traced = {"X-Request-Id": "id-7", "traceparent": TRACEPARENT, "api-key": SECRET}
        await running.post(f"/embed?q={SECRET}", {"texts": [SECRET]}, headers=traced)
        odd = {"X-Request-Id": "id-8", "traceparent": TRACEPARENT.upper()}
        await running.post("/v1/embeddings", {"input": SECRET}, headers=odd)
        await running.get("/" + "x" * 5000)
        _, writer = await running.raw()  # U+009B begins an escape sequence in some terminals
        writer.write("GET /a\u009b31m/b HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        writer.close()
        await running.get("/last")
    return [record for record in caplog.records if record.name == "cortex_embed.access"]


async def test_lines_for_people(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    first, second, long, odd, _ = [r.getMessage() for r in await lines(start, caplog)]
    assert first.startswith('127.0.0.1 "POST /embed HTTP/1.1" 200 ')
    assert first.endswith(f"s id-7 trace {TRACE_ID}")
    assert '"POST /v1/embeddings HTTP/1.1" 401 ' in second
    assert "trace" not in second
    assert len(long) < 300
    assert '"UNKNOWN / HTTP/1.0" 400 ' in odd
    assert SECRET not in caplog.text


async def test_lines_as_json(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    records = await lines(start, caplog)
    first, second, *_ = [json.loads(logs.record_as_json(record)) for record in records]
    assert first["time"].endswith("Z")
    assert 0 < first["seconds"] < 20
    assert first["bytes"] > 10
    for gone in ("time", "seconds", "bytes", "message"):
        del first[gone]
    assert first == {
        "level": "info",
        "logger": "cortex_embed.access",
        "request_id": "id-7",
        "trace_id": TRACE_ID,
        "parent_id": "00f067aa0ba902b7",
        "remote": "127.0.0.1",
        "method": "POST",
        "path": "/embed",
        "dialect": "native",
        "status": 200,
    }
    assert (second["dialect"], second["status"]) == ("openai", 401)
    assert "trace_id" not in second
    assert SECRET not in json.dumps([first, second])


async def test_what_is_no_http_has_a_line_too(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(access_log=True) as running:
        await not_http(running)
    records = [record for record in caplog.records if record.name == "cortex_embed.access"]
    assert [json.loads(logs.record_as_json(record))["status"] for record in records] == [400]
    assert SECRET not in caplog.text


async def not_http(running: Running) -> None:
    reader, writer = await running.raw()
    writer.write(f"GET / HTTP/1.1\r\n{SECRET}\r\n\r\n".encode())
    assert b" 400 " in await reader.readline()
    writer.close()
