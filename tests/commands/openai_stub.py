"""A server with OpenAI's shapes for tests of `bench`: it answers whatever a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator


def body(texts: int, *, tokens: int = 3) -> bytes:
    data = [{"index": n, "embedding": [1.0, 0.0]} for n in range(texts)]
    return json.dumps({"data": data, "usage": {"prompt_tokens": tokens}}).encode()


def response(content: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + content


@contextmanager
def sockets(
    serve: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """The URL where each connection is given to `serve`, in a thread, and then closed."""
    threads: list[threading.Thread] = []
    open_ones: set[socket.socket] = set()

    def one(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if tls is not None:
                connection = tls.wrap_socket(connection, server_side=True)
            open_ones.add(connection)
            with connection:
                serve(connection)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threads.append(threading.Thread(target=one, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            port = listening.getsockname()[1]
            yield f"http{'s' if tls else ''}://127.0.0.1:{port}/v1"
        finally:
            _shut(listening)
            accepting.join(5)
            for connection in open_ones:
                _shut(connection)
            for thread in threads:
                thread.join(5)


def _shut(found: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # What wakes the thread that waits in it; on Windows and macOS closing does.
        socket.socket.shutdown(found, socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        found.close()


def request_of(connection: socket.socket) -> bytes:
    """The next request, head and body. Raises ConnectionError at the connection's end."""
    found = b""
    while (end := found.find(b"\r\n\r\n")) < 0:
        found += _some(connection)
    length = 0
    for line in found[:end].split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    parts = [found]
    missing = end + 4 + length - len(found)
    while missing > 0:
        parts.append(_some(connection))
        missing -= len(parts[-1])
    return b"".join(parts)


def _some(connection: socket.socket) -> bytes:
    if data := connection.recv(65_536):
        return data
    raise ConnectionResetError


@contextmanager
def server(answer: Callable[[bytes], bytes], tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers each request, head and body, with the bytes that `answer` gives."""

    def serve(connection: socket.socket) -> None:
        while True:
            given = answer(request_of(connection))
            connection.sendall(given)
            if b"Connection: close" in given or b"HTTP/1.0" in given:
                return

    with sockets(serve, tls) as url:
        yield url
