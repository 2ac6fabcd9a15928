"""The short way for a request whose head was answered before.

A client's heads are alike, byte for byte, but for `Content-Length`. The first takes the whole way:
aiohttp's parser, router, tasks and response, our middleware and handler. Those that follow need
none of it, only their bodies are new. Of those that have one text and are like an answered one but
for that, even the rest is known (`lots`). It must never give another answer than the whole way
does: what it cannot answer with 200 it leaves to that way, the error included, and who may come in
was decided there.
"""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from cortex_embed.server import handlers
from cortex_embed.server.connection import Connection
from cortex_embed.server.keys import DIALECT
from cortex_embed.server.lots import Lot, Template
from cortex_embed.server.middleware import CLIENT_LEFT, route_of
from cortex_embed.server.written import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from cortex_embed.server.keys import Traffic
    from cortex_embed.server.lots import Member
    from cortex_embed.service import EmbeddingService
    from cortex_embed.wire.dialect import ErrorDialect

# What a request may send and be like the one before it. Whatever else is asked of a header, now or
# one day (a trace, a fingerprint, an id to echo), is asked on the whole way.
_PLAIN = re.compile(
    r"host|user-agent|connection|authorization|(?:x-)?api-key|content-(?:type|length)"
    r"|accept(?:-encoding|-language)?|sec-fetch-\w+|x-stainless-[\w-]+",
    re.IGNORECASE,
)
_HEADS = 64
_TEMPLATES = 4
"""A program asks in few ways: for queries, for documents."""


class Known:
    """What follows from a head, and the bodies that came with it, the newest first."""

    __slots__ = ("by_openai", "choose", "route", "templates")

    def __init__(self, choose: handlers.Choose, route: str, *, by_openai: bool) -> None:
        self.choose = choose
        self.route = route
        self.by_openai = by_openai
        self.templates: tuple[Template, ...] = ()

    def learn(self, template: Template | None) -> None:
        if template is None or any(map(template.is_like, self.templates)):
            return
        if not template.says_twice:
            self.templates = (template, *self.templates[: _TEMPLATES - 1])


class Failure(NamedTuple):
    """Why the short way has no answer: for the whole way to say, in this dialect."""

    why: Exception
    dialect: ErrorDialect | None


class FastPath:
    """The heads that were answered, and how a body that follows one of them is."""

    def __init__(self, service: EmbeddingService, traffic: Traffic, max_body: int) -> None:
        """`max_body` in bytes."""
        self.service = service
        self.max_body = min(max_body, handlers.LARGE_BODY)
        self.traffic = traffic
        self._heads: dict[bytes, Known] = {}
        self.known = self._heads.get
        """What is known of requests with this head, if anything is."""

    def learn(self, request: web.Request, response: web.StreamResponse) -> None:
        """Remember the head of `request`, which the whole way answered, if it may be shortened."""
        connection, handler = request.protocol, request.match_info.handler
        if not isinstance(connection, Connection):
            return
        head, connection.head = connection.head, None
        if head is None or response.status != 200:
            return
        if not isinstance(handler, partial) or handler.func is not handlers.embed:
            return
        headers = request.headers
        if request.version != (1, 1) or not request.keep_alive:
            return
        if not all(map(_PLAIN.fullmatch, headers)):
            return
        if len(self._heads) >= _HEADS:
            del self._heads[next(iter(self._heads))]
        by_openai = handlers.OPENAI_CLIENT in headers
        self._heads[head] = Known(handler.args[0], route_of(request), by_openai=by_openai)

    def fail(self, request: web.Request) -> None:
        """Raise what kept the short way from answering `request`, if it was asked."""
        connection = request.protocol
        if not isinstance(connection, Connection) or (failure := connection.failure()) is None:
            return
        if failure.dialect is not None:
            request[DIALECT] = failure.dialect
        raise failure.why

    def join(self, member: Member, known: Known, body: bytes, began: float) -> Lot | None:
        """Have `body` answered with others, if it is like one before; None if it is not."""
        for template in known.templates:
            text = template.text_of(body)
            if text is None:
                continue
            lot = template.lot
            if lot is not None:
                lot.add(member, text, began)
                return lot
            lot = Lot(self.service, self.traffic, template, known.route)
            lot.add(member, text, began)
            if self.traffic.in_flight > 1:  # others may come before there is a thread for it
                template.lot = lot
                asyncio.get_running_loop().call_soon(lot.begin)
            else:
                lot.begin()
            return lot
        return None

    async def answer(
        self, known: Known, body: bytes, began: float, send: Callable[[bytes], None]
    ) -> bool | Failure:
        """Whether the reply to `body`, which came at `began`, was sent; or why there is none.

        It is counted after it is sent: that need not be waited for.
        """
        service = self.service
        dialect: ErrorDialect | None = None
        try:
            dialect = speaker = known.choose(body)
            asked = handlers.asked_of(speaker, service, body, by_openai=known.by_openai)
            dialect = asked.dialect or dialect
            known.learn(Template.of(body, asked, speaker))
            if not service.is_at_hand(asked.request.model):
                return False
            payload, headers = await handlers.embedded(speaker, service, asked)
            reply = Head.of(headers, closes=service.phase == "draining").reply(payload)
        except asyncio.CancelledError:
            if dialect is not None:
                self._count(dialect, known, CLIENT_LEFT, began)
            raise
        except Exception as why:
            return Failure(why, dialect)
        send(reply)
        self._count(dialect, known, 200, began)
        return True

    def _count(self, dialect: ErrorDialect, known: Known, status: int, began: float) -> None:
        seconds = time.perf_counter() - began
        self.service.metrics.answered(dialect.NAME, known.route, status, seconds)
