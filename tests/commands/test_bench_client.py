"""`bench`'s client over real sockets: one that waits, and ones that a selector waits for."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed.commands import bench_client, bench_http
from cortex_embed.commands.bench_client import Connection, HttpClient
from cortex_embed.commands.bench_http import Response, ResponseParser
from cortex_embed.errors import TargetError, UsageError
from tests.certificates import needs_openssl, self_signed
from tests.commands.openai_stub import request_of, response, server, sockets
from tests.commands.test_bench_http import SHAPES

if TYPE_CHECKING:
    from collections.abc import Iterator

BOTH = pytest.mark.parametrize("waits", [True, False], ids=["waits", "selector"])
ENDLESS = [
    b"HTTP/1.1 200 OK\r\n\r\nto the end",
    b"HTTP/1.0 200 OK\r\nServer: old\r\n\r\nto the end",
]


class Client:
    """One connection, in either of its two ways."""

    def __init__(self, url: str, *, waits: bool) -> None:
        self.http = HttpClient(url)
        self.selector = None if waits else selectors.DefaultSelector()
        self.connection: Connection = self.http.connection(self.selector)

    def send(self, request: bytes) -> Response:
        if self.selector is None:
            return self.connection.exchange(request)
        self.connection.begin(request)
        while True:
            for key, _ in self.selector.select(0.05):
                assert key.data is self.connection
                found: Response | None = key.data.advance()
                if found is not None:
                    return found
            self.connection.require_patience(time.perf_counter())

    def get(self, path: str = "/models") -> Response:
        return self.send(self.http.request("GET", path))

    def post(self, body: bytes) -> Response:
        return self.send(self.http.request("POST", "/embeddings", body))


@contextlib.contextmanager
def client_of(url: str, *, waits: bool) -> Iterator[Client]:
    found = Client(url, waits=waits)
    try:
        yield found
    finally:
        found.connection.close()
        found.http.close()
        if found.selector is not None:
            assert not found.selector.get_map()
            found.selector.close()


@pytest.mark.parametrize("url", ["localhost:80", "ftp://x/v1", "http://", "http://h:99999/v1"])
def test_wrong_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--url"):
        HttpClient(url)


@BOTH
@pytest.mark.parametrize("wire", SHAPES + ENDLESS)
def test_answers_of_any_shape_may_come_in_any_pieces(wire: bytes, waits: bool) -> None:
    parser = ResponseParser()
    expected = parser.feed(wire) or parser.end()
    assert expected is not None

    def serve(connection: socket.socket) -> None:
        while True:
            cut = int(request_of(connection).split()[1].rpartition(b"/")[2])
            connection.sendall(wire[:cut])
            time.sleep(0.0005)
            connection.sendall(wire[cut:])
            if expected.closes:
                return

    with sockets(serve) as url, client_of(url, waits=waits) as client:
        for cut in range(len(wire)):
            assert client.get(f"/{cut}") == expected


@BOTH
@pytest.mark.parametrize(
    "wire",
    [
        response(b"one") + response(b"two"),
        response(b"one") + b"x",
        response(b"one", "200 OK", "Connection: close") + b"x",
        b"nonsense\r\n\r\n",
    ],
)
def test_more_than_an_answer_is_an_error(wire: bytes, waits: bool) -> None:
    with (
        server(lambda _: wire) as url,
        client_of(url, waits=waits) as client,
        pytest.raises(TargetError, match=r"answer is not HTTP/1\.1"),
    ):
        client.get()


@BOTH
def test_a_large_body_goes_to_a_slow_reader(waits: bool) -> None:
    body = bytes(range(256)) * 32_768
    seen = []

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        time.sleep(0.3)  # longer than a client waits for either
        found = bytearray()
        while not found.endswith(body[-4096:]) or len(found) < len(body):
            time.sleep(0.001)
            found += connection.recv(262_144)
        seen.append(bytes(found))
        connection.sendall(response(b"all of it"))
        connection.sendall(response(request_of(connection)[:3]))

    with sockets(serve) as url, client_of(url, waits=waits) as client:
        assert client.post(body).body == b"all of it"
        assert client.get().body == b"GET"
        assert client.connection.received - client.connection.sent < 0.2
    assert seen[0].partition(b"\r\n\r\n")[2] == body


@BOTH
@pytest.mark.parametrize("closes", [True, False])
def test_an_answer_before_the_whole_request_is_taken(waits: bool, closes: bool) -> None:
    go_on = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        headers = ["Connection: close"] if closes else []
        connection.sendall(response(b"too large", "413 Too Large", *headers))
        go_on.wait(5)

    with sockets(serve) as url, client_of(url, waits=waits) as client:
        try:
            found = client.post(bytes(16 << 20))
        finally:
            go_on.set()
    assert (found.status, found.body) == (413, b"too large")


@BOTH
def test_a_large_answer_is_whole(waits: bool) -> None:
    content = bytes(range(256)) * 16_384
    with server(lambda _: response(content)) as url, client_of(url, waits=waits) as client:
        assert client.get().body == content
        assert client.get().body == content


@BOTH
def test_a_connection_that_was_closed_while_idle_is_opened_anew(waits: bool) -> None:
    requests = []

    def serve(connection: socket.socket) -> None:
        requests.append(request_of(connection))
        connection.sendall(response(b"%d" % len(requests)))

    with sockets(serve) as url, client_of(url, waits=waits) as client:
        for number in range(1, 6):
            assert client.get(f"/{number}").body == b"%d" % number
            time.sleep(0.01)
    assert len(requests) == 5


@BOTH
def test_what_the_server_says_unasked_is_no_answer(waits: bool) -> None:
    def serve(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(response(b"asked"))
        time.sleep(0.01)
        connection.sendall(response(b"waited for too long", "408 Request Timeout"))

    with sockets(serve) as url, client_of(url, waits=waits) as client:
        assert client.get().body == b"asked"
        time.sleep(0.05)
        client.connection.look()
        assert client.get().body == b"asked"


@BOTH
def test_an_answer_that_breaks_off_is_not_asked_for_again(waits: bool) -> None:
    requests = []

    def serve(connection: socket.socket) -> None:
        while True:
            requests.append(request_of(connection))
            connection.sendall(response(b"whole") if len(requests) == 1 else response(b"x")[:-1])
            if len(requests) > 1:
                return

    with sockets(serve) as url, client_of(url, waits=waits) as client:
        assert client.get().body == b"whole"
        with pytest.raises(TargetError, match="cannot be reached: the server closed"):
            client.get()
    assert len(requests) == 2


@BOTH
def test_a_request_is_repeated_once_only(waits: bool) -> None:
    requests = []

    def serve(connection: socket.socket) -> None:
        requests.append(request_of(connection))
        if len(requests) == 1:
            connection.sendall(response(b"first"))
            requests.append(request_of(connection))

    with sockets(serve) as url, client_of(url, waits=waits) as client:
        assert client.get().body == b"first"
        with pytest.raises(TargetError, match="cannot be reached"):
            client.get()
    assert len(requests) == 3


@BOTH
def test_nobody_there(waits: bool) -> None:
    with sockets(lambda _: None) as url:
        pass
    message = r"cannot be reached: .*efused.*end in /v1\?"
    with client_of(url, waits=waits) as client, pytest.raises(TargetError, match=message):
        client.get()


@BOTH
def test_nobody_there_any_more(waits: bool) -> None:
    with contextlib.ExitStack() as there:
        url = there.enter_context(server(lambda _: response(b"here")))
        with client_of(url, waits=waits) as client:
            assert client.get().body == b"here"
            there.close()
            with pytest.raises(TargetError, match="cannot be reached"):
                client.get()


def test_a_host_that_is_no_name() -> None:
    message = r"cannot be reached: 'a\.\.b' is no host name"
    url = "http://a..b/v1"
    with client_of(url, waits=True) as client, pytest.raises(TargetError, match=message):
        client.get()


@BOTH
def test_a_server_that_does_not_answer(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_client, "_PATIENCE", 0.1)
    left = threading.Event()

    def silent(connection: socket.socket) -> None:
        while connection.recv(1000):
            pass
        left.set()

    with sockets(silent) as url:
        message = "did not answer within"
        with client_of(url, waits=waits) as client, pytest.raises(TargetError, match=message):
            client.get()
        assert left.wait(5)


@BOTH
def test_an_answer_without_end(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_client, "_PATIENCE", 0.2)

    def endless(connection: socket.socket) -> None:
        request_of(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"1\r\nx\r\n")

    with (
        sockets(endless) as url,
        client_of(url, waits=waits) as client,
        pytest.raises(TargetError, match="did not answer within"),
    ):
        client.get()


@BOTH
def test_a_server_that_hears_and_answers_no_more(
    waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.shutdown(socket.SHUT_WR)
        gone.wait(5)

    message = "cannot be reached: the server closed the connection"
    with sockets(serve) as url, client_of(url, waits=waits) as client:
        with pytest.raises(TargetError, match=message):
            client.post(bytes(16 << 20))
        gone.set()


@BOTH
def test_the_time_is_the_servers(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of this process, which may take longer to read the answer, nor of connecting."""
    read = bench_http.plain

    def late(data: bytes) -> Response | None:
        time.sleep(0.4)
        return read(data)

    monkeypatch.setattr(bench_client, "plain", late)

    def slow(connection: socket.socket) -> None:
        request_of(connection)
        time.sleep(0.1)
        connection.sendall(response(b"", "200 OK", "Connection: close"))

    with sockets(slow) as url, client_of(url, waits=waits) as client:
        client.get()
        assert 0.09 < client.connection.received - client.connection.sent < 0.4


@needs_openssl
@BOTH
def test_tls(waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, tls = self_signed(tmp_path)
    content = bytes(range(256)) * 8192

    def answer(request: bytes) -> bytes:
        if b"/close" in request:
            return response(b"last", "200 OK", "Connection: close")
        return response(content if b"/large" in request else b"%d" % len(request))

    with server(answer, tls) as url:
        message = r"cannot be reached: .*CERTIFICATE_VERIFY"
        with client_of(url, waits=waits) as client, pytest.raises(TargetError, match=message):
            client.get()
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        with client_of(url, waits=waits) as client:
            for _ in range(3):
                assert client.get("/large").body == content
                assert client.get("/close").body == b"last"
            request = client.http.request("POST", "/embeddings", bytes(8 << 20))
            assert client.send(request).body == b"%d" % len(request)
            client.connection.look()  # what TLS itself says is no answer
            assert client.connection._socket is not None
            client.connection._socket.shutdown(socket.SHUT_RDWR)
            assert client.get("/large").body == content
