"""The short way for a request whose head was answered before.

A client's heads are alike, byte for byte, but for `Content-Length`. The first takes the whole way:
aiohttp's parser, router, tasks and response, our middleware and handler. Those that follow need
none of it, only their bodies are new. Of those that have one text and are like an answered one but
for that, even the rest is known (`lots`). It must never give another answer than the whole way
does: what it cannot answer with 200 it leaves to that way, the error included, and who may come in
was decided there.

It leans on aiohttp's `RequestHandler`, and on names of it that are not public (`_USED`).
"""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from cortex_embed.server import handlers
from cortex_embed.server.keys import DIALECT
from cortex_embed.server.lots import Lot, Template
from cortex_embed.server.middleware import CLIENT_LEFT, route_of
from cortex_embed.server.written import Head

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.server.keys import Traffic
    from cortex_embed.service import EmbeddingService
    from cortex_embed.wire.dialect import ErrorDialect

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d{1,9})(?=\r\n)", re.IGNORECASE)
# What a request may send and be like the one before it. Whatever else is asked of a header, now or
# one day (a trace, a fingerprint, an id to echo), is asked on the whole way.
_PLAIN = re.compile(
    r"host|user-agent|connection|authorization|(?:x-)?api-key|content-(?:type|length)"
    r"|accept(?:-encoding|-language)?|sec-fetch-\w+|x-stainless-[\w-]+",
    re.IGNORECASE,
)
# A body may come so many seconds after its head; most come within a tenth of a millisecond.
_PATIENCE = 1.0
_HEADS = 64
_HEAD_BYTES = 4096
_TEMPLATES = 4
"""A program asks in few ways: for queries, for documents."""
_USED = (
    "_close",
    "_force_close",
    "_keepalive_timeout",
    "_loop",
    "_messages",
    "_next_keepalive_close_time",
    "_paused",
    "_waiter",
)


class Known:
    """What follows from a head, and the bodies that came with it, the newest first."""

    __slots__ = ("by_openai", "choose", "route", "templates")

    def __init__(self, choose: handlers.Choose, route: str, *, by_openai: bool) -> None:
        self.choose = choose
        self.route = route
        self.by_openai = by_openai
        self.templates: tuple[Template, ...] = ()

    def learn(self, template: Template | None) -> None:
        if template is not None:
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

    def known(self, head: bytes) -> Known | None:
        return self._heads.get(head)

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

    def join(self, member: Connection, known: Known, body: bytes) -> Lot | None:
        """Have `body` answered with others, if it is like one before; None if it is not."""
        for template in known.templates:
            text = template.text_of(body)
            if text is None:
                continue
            lot = template.lot
            if lot is not None:
                lot.add(member, text)
                return lot
            lot = Lot(self.service, self.traffic, template, known.route)
            if self.traffic.in_flight:  # others may come before there is a thread for it
                template.lot = lot
                member.loop.call_soon(lot.begin)
            lot.add(member, text)
            if template.lot is not lot:
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


class Connection(RequestHandler):
    """aiohttp's, with the short way before it.

    `head` is that of the request which aiohttp is busy with, without its Content-Length; None where
    that is not certain. `owed` counts the bytes that are missing of its body: None once it is not
    certain any more where a request begins, and the short way is closed.
    """

    __slots__ = ("_arrived", "_asked", "_failure", "_fast", "_held", "_work", "head", "owed")

    def __init__(self, fast: FastPath, server: Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._fast = fast
        self._work: asyncio.Task[None] | Lot | None = None
        self._asked: tuple[Known, bytes, int, int] | None = None
        self._arrived: asyncio.Future[None] | None = None
        self._held: list[bytes] = []
        self._failure: Failure | None = None
        self.head: bytes | None = None
        self.owed: int | None = 0

    def data_received(self, data: bytes) -> None:
        if self._work is not None:
            self._hold(data)
            return
        if data and self.owed is not None and not self._short(data, self.owed):
            self._follow(data, self.owed)
        if self._work is None:
            super().data_received(data)

    def _hold(self, data: bytes) -> None:
        """The rest of a body, or what a client sends that does not wait for answers: no more of it
        before this one is given."""
        self._held.append(data)
        if self.owed:
            self._owe(self.owed - len(data))
        elif self.transport is not None:
            self.transport.pause_reading()
        if self._arrived is not None and not self.owed and not self._arrived.done():
            self._arrived.set_result(None)

    def _short(self, data: bytes, owed: int) -> bool:
        """Whether `data` begins one request, whose head is told then; go the short way with it
        if that is known."""
        if owed or not self._is_idle:
            return False
        end = data.find(_END, 0, _HEAD_BYTES)
        length = _LENGTH.search(data, 0, end + 2) if end > 0 else None
        if length is None:
            return False
        head = data[: length.start()] + data[length.end() : end]
        begin = end + len(_END)
        size = int(length[1])
        self._owe(size - (len(data) - begin))
        if self.owed is not None:
            self.head = head
            known = self._fast.known(head)
            if known is not None and size <= self._fast.max_body and not self._paused:
                self._begin(known, data, begin, size)
        return True

    def _begin(self, known: Known, data: bytes, begin: int, size: int) -> None:
        """Go the short way, or the shortest."""
        self._stay_open()
        if len(data) - begin == size and self._fast.service.phase == "ready":
            self._asked = (known, data, begin, size)
            self._work = self._fast.join(self, known, data[begin:])
        if self._work is None:
            self._work = self._loop.create_task(self._answer(known, data, begin, size))

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def replied(self, reply: bytes) -> None:
        """See `lots.Member`."""
        self._send(reply)
        if self._held:
            self._loop.call_soon(self._finish, True, b"")
        else:
            self._work = None

    def handed_on(self) -> None:
        """See `lots.Member`."""
        self._loop.call_soon(self._begin_alone)

    def _begin_alone(self) -> None:
        if self._asked is not None and self.transport is not None:
            self._work = self._loop.create_task(self._answer(*self._asked))

    def _follow(self, data: bytes, owed: int) -> None:
        """Keep account of what aiohttp gets and `_short` did not tell. A head without a length may
        have a body after all, in chunks: aiohttp is not idle then until it is read."""
        if owed:
            self._owe(owed - len(data))
            return
        ends = data.find(_END) == len(data) - len(_END)
        self.head = None
        self.owed = 0 if ends and self._is_idle else None

    def _owe(self, owed: int) -> None:
        """So many bytes of the body are still to come; fewer than none are of another request."""
        if owed >= 0:
            self.owed = owed
        else:
            self.head = self.owed = None

    @property
    def _is_idle(self) -> bool:
        """Whether aiohttp waits for a request, and would take one."""
        return self._waiter is not None and not (self._messages or self._close or self._force_close)

    async def _answer(self, known: Known, data: bytes, begin: int, size: int) -> None:
        began = time.perf_counter()
        fast = self._fast
        found: bool | Failure = False
        try:
            with fast.traffic.requests, fast.traffic.uses:
                if len(data) - begin < size:
                    data = await self._completed(data)
                if len(data) - begin == size and fast.service.phase == "ready":
                    found = await fast.answer(known, data[begin:], began, self._send)
        finally:
            self._work = None
        if found is not True and len(data) - begin > size:
            self._owe(-1)
        self._finish(found, data)

    def _finish(self, found: bool | Failure, data: bytes) -> None:
        """The whole way has its turn if `found` is no answer, and then what came meanwhile."""
        self._work = None
        if self.transport is None:
            return
        if not self.transport.is_reading():
            self.transport.resume_reading()
        if found is not True:
            self._failure = found or None
            super().data_received(data)
        if self._held:
            held, self._held = self._held, []
            self.data_received(b"".join(held))

    def _send(self, reply: bytes) -> None:
        self._stay_open()
        self.head = None
        if self.transport is not None:
            self.transport.write(reply)
            if self._fast.service.phase == "draining":
                self.transport.close()

    async def _completed(self, data: bytes) -> bytes:
        """`data` and the rest of its body, as most of Python's clients send them: one at a time.
        Of one that is slow, what there is: the whole way knows how long to wait."""
        self._arrived = self._loop.create_future()
        if not self.owed:
            self._arrived.set_result(None)
        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await self._arrived
        self._arrived = None
        held, self._held = self._held, []
        return b"".join((data, *held))

    def _stay_open(self) -> None:
        """aiohttp takes the connection for idle, and closes such in the end."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def failure(self) -> Failure | None:
        """Why the short way did not answer the request that aiohttp has now; once."""
        found, self._failure = self._failure, None
        return found

    def connection_lost(self, exc: BaseException | None) -> None:
        if isinstance(self._work, Lot):
            self._work.left(self)
        elif self._work is not None:
            self._work.cancel()
        super().connection_lost(exc)


class _Server(Server):
    """aiohttp's, whose connections have the short way."""

    def __init__(self, fast: FastPath, like: Server) -> None:
        super().__init__(
            like.request_handler,
            request_factory=like.request_factory,
            handler_cancellation=like.handler_cancellation,
            loop=like._loop,
            **like._kwargs,
        )
        self._fast = fast

    def __call__(self) -> RequestHandler:
        return Connection(self._fast, self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's, with the short way if there is one."""

    __slots__ = ("_fast",)

    def __init__(self, app: web.Application, fast: FastPath | None, **options: Any) -> None:
        super().__init__(app, **options)
        self._fast = fast

    async def _make_server(self) -> Server:
        server = await super()._make_server()
        return server if self._fast is None else _Server(self._fast, server)


def is_possible() -> bool:
    """Whether this version of aiohttp has all that the short way leans on."""
    return all(hasattr(RequestHandler, name) for name in _USED)
