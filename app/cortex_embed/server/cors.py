"""Cross-origin resource sharing: which web pages may read our answers.

Source: the Fetch standard, https://fetch.spec.whatwg.org/#http-cors-protocol. Off unless origins
are listed. The origin `null` is never allowed, not even by `*`: every sandboxed frame and every
file on disk has it. Keys travel in headers, so no `Access-Control-Allow-Credentials` is ever sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ALL = "*"
# What `*` stands for: never `null`, and nothing that could not be echoed in a header.
_ORIGIN = r"[a-z][a-z0-9+.-]*://[\[\]a-z0-9.:_-]+"
_ALLOW_HEADERS = (
    "Authorization, Content-Type, api-key, x-api-key, traceparent, X-Request-Id, "
    "If-Embedding-Fingerprint"
)
_EXPOSED = (
    "X-Request-Id, X-Truncated, X-Truncated-Indices, Retry-After, X-Phase, X-Token-Ids, "
    "X-Embedding-Fingerprint"
)
_MAX_AGE = "7200"  # what browsers cap it at


class Cors:
    """The pages of these `origins` (as `parsers.origins` gives them) may use the server."""

    def __init__(self, origins: Collection[str] = ()) -> None:
        self._origins = frozenset(origins)

    @property
    def is_on(self) -> bool:
        """Whether any page at all may."""
        return bool(self._origins)

    def allows(self, origin: str) -> bool:
        """Whether pages of `origin` may read what we answer."""
        lowered = origin.lower()
        if lowered in self._origins:
            return lowered != ALL
        return ALL in self._origins and re.fullmatch(_ORIGIN, lowered) is not None

    def is_preflight(self, method: str, headers: Mapping[str, str]) -> bool:
        """Whether an allowed page's browser asks what the page may send. It carries no key."""
        return (
            method == "OPTIONS"
            and "Access-Control-Request-Method" in headers
            and self.allows(headers.get("Origin", ""))
        )

    def preflight(self, headers: Mapping[str, str]) -> dict[str, str]:
        """What the answer to such a question adds to `simple`."""
        told = {
            "Access-Control-Allow-Methods": "GET, HEAD, POST",
            "Access-Control-Allow-Headers": _ALLOW_HEADERS,
            "Access-Control-Max-Age": _MAX_AGE,
        }
        # https://wicg.github.io/private-network-access: a page of the internet asks for a machine
        # at home. For that `*` is not enough: the page must have been named.
        private = headers.get("Access-Control-Request-Private-Network") == "true"
        if private and headers.get("Origin", "").lower() in self._origins:
            told["Access-Control-Allow-Private-Network"] = "true"
        return told

    def simple(self, headers: Mapping[str, str]) -> dict[str, str]:
        """What every answer to a request with these `headers` says, where pages are allowed."""
        # Also without an Origin: or a cache would give one page the answer to another.
        told = {"Vary": "Origin"}
        origin = headers.get("Origin")
        if origin is not None and self.allows(origin):
            told["Access-Control-Allow-Origin"] = origin
            told["Access-Control-Expose-Headers"] = _EXPOSED
        return told
