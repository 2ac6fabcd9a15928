"""npm's registry in small, on loopback, for real npm clients: metadata and tarballs.

It answers what `npm install` asks (https://github.com/npm/registry/blob/main/docs/REGISTRY-API.md)
and remembers what was asked for.
"""

from __future__ import annotations

import base64
import json
import tarfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha512
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote


@dataclass
class Registry:
    """`packages` are tarballs by package name; `asked` are paths, decoded."""

    url: str = ""
    packages: dict[str, Path] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def add(self, tarballs: Iterable[Path]) -> None:
        for path in tarballs:
            self.packages[manifest_of(path)["name"]] = path

    @property
    def downloaded(self) -> set[str]:
        """File names of the tarballs that were asked for."""
        return {path.rpartition("/")[2] for path in self.asked if path.endswith(".tgz")}

    def document(self, name: str) -> dict[str, Any]:
        """Metadata of a package: its one version is the latest. Raises KeyError."""
        path = self.packages[name]
        manifest = manifest_of(path)
        integrity = "sha512-" + base64.b64encode(sha512(path.read_bytes()).digest()).decode()
        dist = {"tarball": f"{self.url}/{name}/-/{path.name}", "integrity": integrity}
        version = manifest["version"]
        return {
            "name": name,
            "dist-tags": {"latest": version},
            "versions": {version: {**manifest, "dist": dist}},
        }


def manifest_of(tarball: Path) -> dict[str, Any]:
    with tarfile.open(tarball) as tar:
        file = tar.extractfile("package/package.json")
        assert file is not None
        manifest: dict[str, Any] = json.load(file)
    return manifest


@contextmanager
def serving() -> Iterator[Registry]:
    registry = Registry()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0]).removeprefix("/")
            registry.asked.append(path)
            name, _, file = path.partition("/-/")
            known = registry.packages.get(name)
            if known is None or (file and file != known.name):
                self._answer(404, b'{"error": "Not found"}', "application/json")
            elif file:
                self._answer(200, known.read_bytes(), "application/octet-stream")
            else:
                document = json.dumps(registry.document(name)).encode()
                self._answer(200, document, "application/json")

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """`asked` tells."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    registry.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
