"""The caller's trace, so that our log lines can be found from its other ends.

Format: W3C Trace Context level 1, https://www.w3.org/TR/trace-context-1/#traceparent-header.
It must never fail a request: what is not valid is ignored, as the specification asks.
"""

from __future__ import annotations

import re
from typing import NamedTuple

HEADER = "traceparent"
_VERSION_00 = r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}"


class Trace(NamedTuple):
    """`trace_id` is 32, `parent_id` 16 lower-case hexadecimal digits."""

    trace_id: str
    parent_id: str


def parse(header: str) -> Trace | None:
    """The trace that a `traceparent` header names; None where it is not valid."""
    found = re.fullmatch(_VERSION_00, header)
    if found is None or not found[1].strip("0") or not found[2].strip("0"):
        return None
    return Trace(found[1], found[2])
