"""A connection that knows the short ways, before aiohttp's.

It tells where a request begins and ends, and hands its bytes to the shortest way that may have
them (`fast_path`); to aiohttp, as they came, where none has. What it promises: replies in the order
of the requests, and whatever it is not certain of is aiohttp's. It must never decide what a request
means.

It leans on aiohttp's `RequestHandler`, and on names of it that are not public (`_USED`).
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_server import Server

from cortex_embed.server.lots import Lot

if TYPE_CHECKING:
    from cortex_embed.server.fast_path import Failure, FastPath, Known

_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d{1,9})(?=\r\n)", re.IGNORECASE)
# A body may come so many seconds after its head. Most come within a tenth of a millisecond, those
# of clients that wait for an acknowledgement within 40. Then --body-timeout begins.
_PATIENCE = 0.25
_HEAD_BYTES = 4096
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


class Connection(RequestHandler):
    """aiohttp's, with the short ways before it.

    `head` is that of the request which aiohttp is busy with, without its Content-Length; None where
    that is not certain. `owed` counts the bytes that are missing of its body: None once it is not
    certain any more where a request begins, and the short ways are closed.
    """

    __slots__ = (
        "_began",
        "_body",
        "_data",
        "_failure",
        "_fast",
        "_held",
        "_known",
        "_work",
        "head",
        "owed",
    )

    def __init__(self, fast: FastPath, server: Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._fast = fast
        self._work: asyncio.TimerHandle | asyncio.Task[None] | Lot | None = None
        """What a request is in: the wait for its body, a task of its own, or company."""
        self._data = b""
        """That request; nothing of it stays while the connection is idle."""
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
        if not self.owed and isinstance(self._work, asyncio.TimerHandle):
            self._work.cancel()
            self._arrived()

    def _short(self, data: bytes, owed: int) -> bool:
        """Whether `data` begins one request, whose head is told then; go a short way with it if
        that is known."""
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
                self._begin(known, data, begin)
        return True

    def _begin(self, known: Known, data: bytes, begin: int) -> None:
        """Of the request that is `known`, `data` has come; its body begins there."""
        self._stay_open()
        self._fast.traffic.enter()
        self._known = known
        self._data = data
        self._body = begin
        self._began = time.perf_counter()
        if self.owed:  # most of Python's clients send a body after its head
            self._work = self._loop.call_later(_PATIENCE, self._wait_no_more)
        else:
            self._go()

    def _arrived(self) -> None:
        if self.owed is None:  # and more than that
            self._wait_no_more()
            return
        held, self._held = self._held, []
        self._data = b"".join((self._data, *held))
        self._work = None
        self._go()

    def _wait_no_more(self) -> None:
        """The whole way knows how long to wait for a body, and what may come behind one."""
        held, self._held = self._held, []
        self._finish(False, b"".join((self._data, *held)))
        self._fast.traffic.leave()

    def _go(self) -> None:
        """The shortest way, if it may be gone."""
        if self._fast.service.phase == "ready":
            body = self._data[self._body :]
            self._work = self._fast.join(self, self._known, body, self._began)
        if self._work is None:
            self._go_alone()

    def _go_alone(self) -> None:
        if self.transport is None:
            self._fast.traffic.leave()
            return
        self._work = self._loop.create_task(self._answer())
        # Not inside it: a task that is cancelled before it begins never gets there.
        self._work.add_done_callback(lambda _: self._fast.traffic.leave())

    def replied(self, reply: bytes) -> None:
        """See `lots.Member`."""
        self._data = b""
        self._send(reply)
        if self._held:
            self._loop.call_soon(self._finish, True, b"")
        else:
            self._work = None

    def handed_on(self) -> None:
        """See `lots.Member`."""
        self._loop.call_soon(self._go_alone)

    def _follow(self, data: bytes, owed: int) -> None:
        """Keep account of what aiohttp gets and `_short` did not tell. A head without a length may
        have a body after all, in chunks: aiohttp is not idle then until it is read."""
        if owed:
            self._owe(owed - len(data))
            return
        end = data.find(_END)
        ends_there = end >= 0 and end + len(_END) == len(data)
        self.head = None
        self.owed = 0 if ends_there and self._is_idle else None

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

    async def _answer(self) -> None:
        found: bool | Failure = False
        data = self._data
        if self._fast.service.phase == "ready":
            body = data[self._body :]
            found = await self._fast.answer(self._known, body, self._began, self._send)
        self._finish(found, data)

    def _finish(self, found: bool | Failure, data: bytes) -> None:
        """The whole way has its turn if `found` is no answer, and then what came meanwhile."""
        self._work = None
        self._data = b""
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

    def _stay_open(self) -> None:
        """aiohttp takes the connection for idle, and closes such in the end."""
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout

    def failure(self) -> Failure | None:
        """Why the short way did not answer the request that aiohttp has now; once."""
        found, self._failure = self._failure, None
        return found

    def connection_lost(self, exc: BaseException | None) -> None:
        work = self._work
        if isinstance(work, Lot):
            work.left(self)
        elif work is not None:
            work.cancel()
            if isinstance(work, asyncio.TimerHandle):
                self._fast.traffic.leave()
        self._data = b""
        self._held = []
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
