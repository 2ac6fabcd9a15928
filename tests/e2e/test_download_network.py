"""Downloads through proxies and from a hub with a certificate of its own."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_connection
from urllib.parse import urlsplit

import pytest

from tests.certificates import needs_openssl, self_signed
from tests.e2e.machine import GRAPH, REPO, Machine
from tests.hub import REVISION, repository, running

pytestmark = pytest.mark.e2e


@dataclass
class Proxy:
    url: str
    asked: list[str]


@contextmanager
def proxy(refuse: bool = False) -> Iterator[Proxy]:
    """A forward proxy for http:// and, by CONNECT, https://, as small as can be."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Say nothing."""

        def _forward(self) -> None:
            asked.append(f"{self.command} {self.path}")
            parts = urlsplit(self.path)
            with closing(HTTPConnection(parts.hostname or "", parts.port)) as connection:
                connection.request(self.command, parts.path)
                reply = connection.getresponse()
                self.send_response(reply.status)
                for key, value in reply.getheaders():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(reply.read())

        do_GET = do_HEAD = _forward  # noqa: N815 - http.server's names

        def do_CONNECT(self) -> None:
            asked.append(f"CONNECT {self.path}")
            if refuse:
                self.send_error(407, "Proxy Authentication Required")
                return
            host, _, port = self.path.partition(":")
            there = create_connection((host, int(port)))
            self.send_response(200)
            self.end_headers()

            def pump(source: object, target: object) -> None:
                try:
                    while data := source.recv(65536):  # type: ignore[attr-defined]
                        target.sendall(data)  # type: ignore[attr-defined]
                except OSError:
                    return

            thread = threading.Thread(target=pump, args=(there, self.connection), daemon=True)
            thread.start()
            pump(self.connection, there)
            there.close()
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield Proxy(f"http://127.0.0.1:{server.server_port}", asked)
    finally:
        server.shutdown()
        server.server_close()


def test_a_proxy_is_used_unless_the_host_is_excepted(machine: Machine) -> None:
    with proxy() as between:
        machine.more["HTTP_PROXY"] = between.url
        machine.run("models", "pull", "tiny-hub")
        assert any(f"/resolve/{REVISION}/{GRAPH}" in one for one in between.asked)
        between.asked.clear()
        shutil.rmtree(machine.final)
        machine.more["NO_PROXY"] = "127.0.0.1"
        machine.run("models", "pull", "tiny-hub")
        assert between.asked == []


@needs_openssl
def test_a_private_authority_and_a_proxy_before_it(exe: list[str], tmp_path: Path) -> None:
    certificate, tls = self_signed(tmp_path)
    with running(tls) as hub, proxy() as between, proxy(refuse=True) as closed:
        hub.repositories[REPO] = repository()
        machine = Machine(exe, hub, tmp_path / "home")
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
        assert "is not trusted" in err
        assert "SSL_CERT_FILE" in err
        machine.more["SSL_CERT_FILE"] = str(certificate)
        machine.run("models", "pull", "tiny-hub")
        shutil.rmtree(machine.final)
        machine.more["HTTPS_PROXY"] = closed.url
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
        assert "The proxy refuses to connect" in err
        machine.more["HTTPS_PROXY"] = between.url
        machine.run("models", "pull", "tiny-hub")
        assert all(one.startswith("CONNECT 127.0.0.1:") for one in between.asked)
        assert between.asked
