from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from cortex_embed import __version__
from cortex_embed.server.written import Head


def test_a_reply_is_http() -> None:
    """What aiohttp writes instead, `test_fast_path` compares it with."""
    head = Head.of({"X-One": "1", "X-Two": "é"}, closes=False)
    first, second = head.reply(b"{}"), head.reply(b"[1,", b"2]")
    lines, body = first.split(b"\r\n\r\n")
    status, *headers = lines.decode("latin-1").split("\r\n")
    assert status == "HTTP/1.1 200 OK"
    found = dict(line.split(": ", 1) for line in headers)
    assert list(found) == [
        "X-One", "X-Two", "Content-Type", "X-Request-Id", "Server", "Content-Length", "Date",
    ]  # fmt: skip
    assert (found["X-Two"], found["Content-Length"], body) == ("é", "2", b"{}")
    assert found["Server"] == f"cortex-embed/{__version__}"
    assert parsedate_to_datetime(found["Date"]).year >= 2026
    ids = {re.search(rb"X-Request-Id: ([0-9a-f]{32})\r\n", one) for one in (first, second)}
    assert len({one[1] for one in ids if one}) == 2
    assert b"Content-Length: 5\r\n" in second


def test_the_last_reply_says_so() -> None:
    assert b"\r\nConnection: close\r\n\r\n{}" in Head.of({}, closes=True).reply(b"{}")
