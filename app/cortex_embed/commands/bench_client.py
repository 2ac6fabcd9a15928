"""A small HTTP/1.1 client for measuring: keep-alive, prebuilt requests, plain sockets.

It exists because a general client, or an event loop, takes more time a request than a fast
server does, on the same cores, and would be what is measured. It must never have two requests
under way on one connection, nor repeat one that the server has begun to answer.
"""

from __future__ import annotations

import os
import selectors
import socket
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cortex_embed.commands.bench_http import Response, ResponseParser, plain
from cortex_embed.commands.bench_window import TICK
from cortex_embed.errors import TargetError, UsageError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence

_PATIENCE = 120.0
_SOME = 65_536
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE
_now = time.perf_counter


def _nothing() -> None:
    pass


class Endpoint:
    """Where connections go. `where` is for people."""

    def __init__(self, host: str, port: int, *, tls: bool, where: str) -> None:
        self._host = host
        self._port = port
        self._address: tuple[socket.AddressFamily, tuple[Any, ...]] | None = None
        self.tls: ssl.SSLContext | None = None
        self.where = where
        # What a socket says that is not ready, and for what it then waits, if not for its turn.
        self.waits: dict[type[OSError], int] = {}
        if tls:
            import ssl

            self.tls = ssl.create_default_context()
            self.waits = {ssl.SSLWantReadError: _READ, ssl.SSLWantWriteError: _WRITE}
        self.not_ready: tuple[type[OSError], ...] = (BlockingIOError, TimeoutError, *self.waits)

    def connect(self) -> socket.socket:
        """A connected socket that waits `TICK` for what is not ready. Raises OSError."""
        try:
            found = socket.create_connection((self._host, self._port), _PATIENCE)
        except UnicodeError:
            raise OSError(f"{self._host!r} is no host name") from None
        self._address = (found.family, found.getpeername())
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            found = self.tls.wrap_socket(found, server_hostname=self._host)
        found.settimeout(TICK)
        return found

    def begin(self) -> tuple[socket.socket, tuple[Any, ...]]:
        """A socket that never waits, and the address to connect it to. Raises OSError."""
        if self._address is None:
            self.connect().close()  # a host may have several addresses: this finds which answers
        assert self._address is not None  # noqa: S101 - by `connect`
        family, address = self._address
        found = socket.socket(family)
        found.setblocking(False)
        found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return found, address

    def secured(self, connected: socket.socket) -> tuple[socket.socket, Callable[[], None] | None]:
        """`connected` as bytes are to go over it, and the handshake that is due before."""
        if self.tls is None:
            return connected, None
        found = self.tls.wrap_socket(
            connected, server_hostname=self._host, do_handshake_on_connect=False
        )
        return found, found.do_handshake


class Connection:
    """One connection with at most one request under way, opened anew where it was closed.

    With a `selector` it never waits, and is registered there with itself as the data; without
    one, `advance` waits for up to `TICK` seconds.
    """

    __slots__ = (
        "_began", "_connecting", "_endpoint", "_fd", "_handshake", "_parser", "_request",
        "_selector", "_socket", "_unsent", "_used", "_watched", "received", "sent",
    )  # fmt: skip

    def __init__(self, endpoint: Endpoint, selector: selectors.BaseSelector | None = None) -> None:
        self._endpoint = endpoint
        self._selector = selector
        self._socket: socket.socket | None = None
        self._fd = -1
        self._connecting = False
        self._handshake: Callable[[], None] | None = None
        self._watched = _READ
        self._used = False
        self._request: bytes | None = None
        self._unsent: bytes | memoryview = b""
        self._parser: ResponseParser | None = None
        self._began = 0.0
        self.sent = 0.0
        """When the request was about to be sent, by `time.perf_counter`; 0: not yet."""
        self.received = 0.0
        """When the last part of the answer was here."""

    def exchange(self, request: bytes, waiting: Callable[[], None] = _nothing) -> Response:
        """Send `request`, wait for its response; not with a selector. Raises TargetError.

        `waiting` is called now and then meanwhile, where the answer takes longer than `TICK`.
        """
        self.begin(request)
        while (response := self.advance()) is None:
            self.require_patience(_now())
            waiting()
        return response

    def begin(self, request: bytes) -> None:
        """Send as much of `request` as can be. Raises TargetError."""
        self._request = self._unsent = request
        self._began = _now()
        self.sent = 0.0
        self._attempt(self._send)

    def advance(self) -> Response | None:
        """Go on as far as the socket lets: the response, once it is complete.

        Raises TargetError when the server cannot be reached or its answer is not HTTP/1.1.
        """
        if self._request is None:
            self.look()
            return None
        return self._attempt(self._go_on)

    def require_patience(self, now: float) -> None:
        """Raises TargetError where a request has been under way for too long."""
        if self._request is not None and now - self._began > _PATIENCE:
            raise self._silent()

    def look(self) -> None:
        """Close where the server has done so, or has spoken, while nothing was asked."""
        if self._socket is None:
            return
        timeout = self._socket.gettimeout()
        self._socket.settimeout(0)
        try:
            self._socket.recv(_SOME)
        except self._endpoint.not_ready:
            self._socket.settimeout(timeout)
            return
        except OSError:
            pass
        self.close()

    def close(self) -> None:
        """Close, whatever is under way."""
        found, self._socket = self._socket, None
        self._connecting, self._handshake, self._parser = False, None, None
        self._used = False
        if found is not None:
            if self._selector is not None:
                self._selector.unregister(self._fd)
                self._watched = _READ
            found.close()

    def _attempt(self, step: Callable[[], Response | None]) -> Response | None:
        try:
            response = step()
        except self._endpoint.not_ready as why:
            self._wait_for(self._endpoint.waits.get(type(why)))
            return None
        except OSError as why:
            if not self._used or self._parser is not None:
                self.close()
                raise TargetError(
                    f"{self._endpoint.where} cannot be reached: {why.strerror or why}. Is the "
                    "server running there, and does the URL end in /v1?"
                ) from None
            self.close()  # as the server had while it was idle, which it may do
            self._unsent, self.sent = self._request or b"", 0.0
            return self._attempt(self._send)
        except ValueError as why:
            self.close()
            raise TargetError(f"The server's answer is not HTTP/1.1: {why}.") from None
        if self._watched != _READ:
            self._watch(_READ)
        return response

    def _wait_for(self, events: int | None) -> None:
        if events is None:
            # For an answer too: it may come before the server has read all, which then ends.
            events = _READ | _WRITE if self._unsent else _READ
        if self._selector is not None:
            if self._watched != events:
                self._watch(events)
        elif self._unsent and self._socket is not None:
            self._socket.settimeout(0)
            with selectors.DefaultSelector() as once:
                once.register(self._socket, events)
                once.select(TICK)

    def _watch(self, events: int) -> None:
        self._watched = events
        if self._selector is not None and self._socket is not None:
            self._selector.modify(self._fd, events, self)

    def _open(self) -> None:
        try:
            if self._selector is None:
                self._socket = self._endpoint.connect()
                return
            self._socket, address = self._endpoint.begin()
        except TimeoutError:
            raise self._silent() from None
        self._connecting = True
        self._fd = self._socket.fileno()
        self._selector.register(self._fd, self._watched, self)
        self._socket.connect(address)

    def _secure(self) -> None:
        assert self._socket is not None  # noqa: S101 - it is what is opened
        if self._connecting:
            code = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise ConnectionError(os.strerror(code))
            self._connecting = False
            self._socket, self._handshake = self._endpoint.secured(self._socket)
        if self._handshake is not None:
            self._handshake()
            self._handshake = None

    def _send(self) -> None:
        if not self.sent:
            if self._socket is None:
                self._open()
            if self._connecting or self._handshake is not None:
                self._secure()
            self.sent = _now()
        assert self._socket is not None  # noqa: S101 - it was just opened
        count = self._socket.send(self._unsent)
        while count < len(self._unsent):
            self.require_patience(_now())
            self._unsent = memoryview(self._unsent)[count:]
            count = self._socket.send(self._unsent)
        self._unsent = b""

    def _go_on(self) -> Response:
        if self._unsent:
            try:
                self._send()
            except OSError as why:
                if not self.sent:
                    raise
                try:
                    return self._receive()
                except self._endpoint.not_ready:
                    raise why from None
            if self._selector is None and self._socket is not None:
                self._socket.settimeout(TICK)
        return self._receive()

    def _receive(self) -> Response:
        assert self._socket is not None  # noqa: S101 - something was sent
        while True:
            data = self._socket.recv(_SOME)
            self.received = _now()
            if self._parser is None:
                response = plain(data)
                if response is not None:
                    return self._answered(response)
                if not data:
                    raise ConnectionResetError("the server closed the connection")
                self._parser = ResponseParser()
            response = self._parser.feed(data) if data else self._parser.end()
            if response is not None:
                if not self._parser.empty:
                    raise ValueError("more than one answer to one request")
                return self._answered(response)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self.require_patience(self.received)

    def _answered(self, response: Response) -> Response:
        self._request = self._parser = None
        self._used = True
        if response.closes or self._unsent:
            self.close()
        return response

    def _silent(self) -> TargetError:
        where = self._endpoint.where
        return TargetError(f"{where} did not answer within {_PATIENCE:.0f} s.")


class HttpClient:
    """Requests to one base URL."""

    def __init__(self, base: str, headers: Sequence[str] = ()) -> None:
        """`base` as in OpenAI's clients: `http://host:port/v1`. Raises UsageError."""
        try:
            parts = urlsplit(base)
            port = parts.port
        except ValueError as why:
            raise UsageError(f"--url: {base!r} is not a URL: {why}.") from None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"--url: {base!r} must be like http://127.0.0.1:8121/v1.")
        tls = parts.scheme == "https"
        port = port or (443 if tls else 80)
        self._path = parts.path.rstrip("/")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.where = f"{parts.scheme}://{host}:{port}{self._path}"
        self._fixed = "".join(f"{line}\r\n" for line in (f"Host: {host}:{port}", *headers))
        self._endpoint = Endpoint(parts.hostname, port, tls=tls, where=self.where)
        self._own = self.connection()

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request to `path` below the base."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._fixed}Accept: application/json\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode("latin-1") + body

    def connection(self, selector: selectors.BaseSelector | None = None) -> Connection:
        """A connection of the caller's own, which opens with its first request."""
        return Connection(self._endpoint, selector)

    def send(self, request: bytes) -> Response:
        """Exchange on the client's own connection. Raises TargetError."""
        return self._own.exchange(request)

    def close(self) -> None:
        self._own.close()
