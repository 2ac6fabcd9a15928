"""Who may talk to this server: judged before a request is routed.

A page in the person's browser can send requests to loopback, and by DNS rebinding under a
name of its own (the browser then sends that name as Host). A token keeps other programs of
this machine out. It must never log or quote a token.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING

from cortex_embed.errors import AuthenticationError, ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from multidict import CIMultiDictProxy

    from cortex_embed.server.sockets import Listener

PROBES = frozenset({"/livez", "/readyz"})
"""What a supervisor asks, which has no token; they tell nothing but the phase."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:/?#@\s]+))(?::\d{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\S+)")
_SHOWN = 100


class Guard:
    """`hosts` are the names under which it may be reached, None for any; `token` likewise."""

    def __init__(self, token: str | None = None, hosts: frozenset[str] | None = None) -> None:
        self._token = token.encode() if token is not None else None
        self._hosts = hosts

    @classmethod
    def of(cls, listener: Listener, token: str | None) -> Guard:
        """The rules for `listener`: names are judged where only this machine should reach it."""
        named = listener.host.strip("[]").lower()
        return cls(token, _LOCAL | {named} if listener.is_loopback else None)

    def check(self, path: str, headers: CIMultiDictProxy[str], *, is_page: bool = False) -> None:
        """Raises ForbiddenError, AuthenticationError. A page asks for its token by itself."""
        if self._hosts is not None:
            for host in headers.getall("Host", ()):
                if self._name(host) not in self._hosts:
                    raise ForbiddenError(
                        f"Host {host[:_SHOWN]!r} is not this server's; ask for "
                        f"{', '.join(sorted(self._hosts))} (DNS rebinding is refused), or "
                        "listen on another address with --host."
                    )
            for origin in headers.getall("Origin", ()):
                found = _ORIGIN.fullmatch(origin.lower())
                if not found or self._name(found[1]) not in self._hosts:
                    raise ForbiddenError(
                        f"Pages of the origin {origin[:_SHOWN]!r} may not use this server; send "
                        "the request from a program, or from a page on localhost."
                    )
        is_open = is_page or path in PROBES
        if self._token is not None and not is_open and not self._knows(headers):
            raise AuthenticationError(
                "This server asks for its token: send 'Authorization: Bearer TOKEN' (OpenAI's "
                "clients: api_key). It is in the ready event, or where --token-env names it."
            )

    @staticmethod
    def _name(authority: str) -> str | None:
        """The host of `host:port`, as names are compared."""
        found = _AUTHORITY.fullmatch(authority.strip().lower())
        return (found[1] or found[2].removesuffix(".")) if found else None

    def _knows(self, headers: Mapping[str, str]) -> bool:
        scheme, _, credentials = headers.get("Authorization", "").partition(" ")
        given = [credentials.strip()] if scheme.lower() == "bearer" else []
        given.append(headers.get("api-key", ""))
        # surrogateescape: aiohttp decodes header bytes that are not UTF-8 that way.
        known = [
            hmac.compare_digest(one.encode("utf-8", "surrogateescape"), self._token or b"")
            for one in given
            if one
        ]
        return any(known)
