"""Who may talk to this server: judged before a request is routed.

A page in the person's browser can send requests to loopback, and by DNS rebinding under a
name of its own (the browser then sends that name as Host). API keys keep other programs of
this machine, and other machines, out. It must never log or quote a key.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING

from cortex_embed.errors import AuthenticationError, ForbiddenError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from multidict import CIMultiDictProxy

    from cortex_embed.server.cors import Cors
    from cortex_embed.server.sockets import Listener

PROBES = frozenset({"/livez", "/readyz", "/health"})
"""What a supervisor asks, which has no key; they tell nothing but the phase."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_AUTHORITY = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:/?#@\s]+))(?::\d{1,5})?")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\S+)")
_SHOWN = 100


class Guard:
    """`keys` are the API keys of which one is asked for, none for an open server; `hosts` are the
    names under which it may be reached, None for any. Pages that `cors` allows may come."""

    def __init__(
        self,
        keys: Collection[str] = (),
        hosts: frozenset[str] | None = None,
        cors: Cors | None = None,
    ) -> None:
        self._keys = tuple(key.encode() for key in keys)
        self._hosts = hosts
        self._cors = cors

    @classmethod
    def of(cls, listener: Listener, keys: Collection[str], cors: Cors | None = None) -> Guard:
        """The rules for `listener`: names are judged where only this machine should reach it."""
        named = listener.host.strip("[]").lower()
        return cls(keys, _LOCAL | {named} if listener.is_loopback else None, cors)

    def check(self, path: str, headers: CIMultiDictProxy[str], *, is_page: bool = False) -> None:
        """Raises ForbiddenError, AuthenticationError. A page asks for its key by itself."""
        self.check_names(headers)
        is_open = is_page or path in PROBES
        if self._keys and not is_open and not self._knows(headers):
            raise AuthenticationError(
                "This server asks for an API key: send 'Authorization: Bearer KEY' (OpenAI's "
                "clients: api_key), or the header api-key or x-api-key. Ask whoever started the "
                "server; a sidecar's is the token of its ready event."
            )

    def check_names(self, headers: CIMultiDictProxy[str]) -> None:
        """Raises ForbiddenError for a host that is not ours, a page that is not allowed."""
        if self._hosts is not None:
            for host in headers.getall("Host", ()):
                if self._name(host) not in self._hosts:
                    raise ForbiddenError(
                        f"Host {host[:_SHOWN]!r} is not this server's; ask for "
                        f"{', '.join(sorted(self._hosts))} (DNS rebinding is refused), or "
                        "listen on another address with --host."
                    )
            for origin in headers.getall("Origin", ()):
                if self._cors is not None and self._cors.allows(origin):
                    continue
                found = _ORIGIN.fullmatch(origin.lower())
                if not found or self._name(found[1]) not in self._hosts:
                    raise ForbiddenError(
                        f"Pages of the origin {origin[:_SHOWN]!r} may not use this server; send "
                        "the request from a program, or from a page on localhost, or list the "
                        "origin in --cors-origins."
                    )

    @staticmethod
    def _name(authority: str) -> str | None:
        """The host of `host:port`, as names are compared."""
        found = _AUTHORITY.fullmatch(authority.strip().lower())
        return (found[1] or found[2].removesuffix(".")) if found else None

    def _knows(self, headers: Mapping[str, str]) -> bool:
        """Whether one of the keys was sent. It takes the same time for each of them."""
        # surrogateescape: aiohttp decodes header bytes that are not UTF-8 that way.
        sent = [one.encode("utf-8", "surrogateescape") for one in _sent(headers) if one]
        known = [hmac.compare_digest(one, key) for one in sent for key in self._keys]
        return any(known)


def _sent(headers: Mapping[str, str]) -> Iterator[str]:
    """What may be a key."""
    authorization = headers.get("Authorization", "").strip()
    scheme, space, credentials = authorization.partition(" ")
    if scheme.lower() == "bearer":
        yield credentials.strip()
    elif not space:  # LlamaIndex's client for text-embeddings-inference sends nothing but the key
        yield authorization
    yield headers.get("api-key", "").strip()
    yield headers.get("x-api-key", "").strip()
