"""A Hugging Face hub on loopback, as the real client uses it, and every way it can fail.

Two servers, as there: the hub answers HEAD and GET of `/{repo}/resolve/{revision}/{path}`, with a
redirect to a storage of another origin for large files (LFS) and to a path of its own for small
ones; the storage serves ranges. Behaviour by huggingface_hub 2.4's file_download.py and _http.py.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

REVISION = "0123456789abcdef0123456789abcdef01234567"
LARGE = 4096
"""Files from this size on are stored as large ones are."""
_STEP = 16_384


@dataclass
class Trouble:
    """What goes wrong with a file, `times` times. `after` is in bytes of a body."""

    kind: Literal["status", "stall", "cut", "wrong", "longer", "size", "slow", "ignore_range"]
    times: int = 10**6
    after: int = 0
    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)
    on: tuple[str, ...] = ("GET",)
    """Methods that it befalls. A status is the hub's, all else the storage's."""


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    origin: Literal["hub", "storage"]


class Hub:
    """Repositories by name: each maps paths to contents, at `REVISION`."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.troubles: dict[str, list[Trouble]] = defaultdict(list)
        self.requests: list[Request] = []
        self.sent: dict[str, int] = defaultdict(int)
        """Bytes of bodies by path."""
        self._lock = threading.Lock()
        self._over = threading.Event()
        scheme = "https" if tls else "http"
        self._servers = [self._serve(origin, tls) for origin in ("hub", "storage")]
        self.url, self.storage = (
            f"{scheme}://127.0.0.1:{server.server_address[1]}" for server in self._servers
        )

    def _serve(self, origin: Any, tls: ssl.SSLContext | None) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self, "origin": origin})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server

    def trouble(self, path: str, kind: Any, **more: Any) -> None:
        """Let a file of any repository, by its path there, fail in this way."""
        self.troubles[path].append(Trouble(kind, **more))

    def next_trouble(self, path: str, method: str, *kinds: str) -> Trouble | None:
        with self._lock:
            for one in self.troubles[path]:
                if one.times > 0 and method in one.on and one.kind in kinds:
                    one.times -= 1
                    return one
        return None

    def count(self, method: str, path: str) -> int:
        """Requests that a file's content was asked for at its origin, or its head at the hub."""
        wanted: tuple[str, ...] = ("hub",) if method == "HEAD" else ("hub", "storage")
        with self._lock:
            return sum(
                r.method == method and r.path.endswith(path) and r.origin in wanted
                for r in self.requests
            )

    def wait(self, seconds: float) -> bool:
        """Sleep; True if the hub is over."""
        return self._over.wait(seconds)

    def close(self) -> None:
        self._over.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    origin: Literal["hub", "storage"]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(self.path)
        self.hub.requests.append(
            Request(self.command, path, dict(self.headers.items()), self.origin)
        )
        try:
            if self.origin == "storage":
                repo, name = path[1:].split("/lfs/")
                self._content(name, self.hub.repositories[repo][name])
            elif path.startswith("/api/resolve-cache/"):
                repo, name = path.removeprefix("/api/resolve-cache/").split("/resolve/")
                self._small(name, self.hub.repositories[repo][name])
            else:
                self._resolve(path)
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            self.close_connection = True

    def _resolve(self, path: str) -> None:
        repo, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        if trouble := self.hub.next_trouble(name, self.command, "status"):
            return self._refuse(trouble.status, trouble.headers)
        files = self.hub.repositories.get(repo)
        if files is None:  # the hub does not tell strangers which repositories there are
            return self._refuse(401, {"X-Error-Code": "RepoNotFound"})
        if revision != REVISION:
            return self._refuse(404, {"X-Error-Code": "RevisionNotFound"})
        if name not in files:
            return self._refuse(404, {"X-Error-Code": "EntryNotFound"})
        content = files[name]
        if len(content) < LARGE:
            return self._redirect(307, f"/api/resolve-cache/{repo}/resolve/{name}", {})
        size = len(content)
        if self.hub.next_trouble(name, "HEAD", "size"):
            size += 1
        linked = {
            "X-Repo-Commit": REVISION,
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(size),
        }
        return self._redirect(302, f"{self.hub.storage}/{repo}/lfs/{name}", linked)

    def _small(self, name: str, content: bytes) -> None:
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content)  # noqa: S324 - git's
        self._content(name, content, {"X-Repo-Commit": REVISION, "ETag": f'"{blob.hexdigest()}"'})

    def _redirect(self, status: int, location: str, headers: Mapping[str, str]) -> None:
        self._head(status, {"Location": location, "Content-Length": "0", **headers})

    def _refuse(self, status: int, headers: Mapping[str, str]) -> None:
        body = b"" if self.command == "HEAD" else b"<p>no</p>"
        self._head(status, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def _head(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()

    def _content(self, name: str, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        trouble = self.hub.next_trouble(
            name, self.command, "stall", "cut", "wrong", "longer", "slow", "ignore_range"
        ) or Trouble("slow", after=10**12)
        if trouble.kind == "wrong":
            content = bytes(byte ^ 1 for byte in content)
        if trouble.kind == "longer":
            content += b"more"
        start, wanted = 0, self.headers.get("Range", "")
        given = dict(headers or {})
        if wanted and trouble.kind != "ignore_range":
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                return self._refuse(416, {"Content-Range": f"bytes */{len(content)}"})
            given["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = content[start:]
        self._head(206 if start else 200, {"Content-Length": str(len(body)), **given})
        if self.command == "GET":
            self._send(name, body, trouble)
        return None

    def _send(self, name: str, body: bytes, trouble: Trouble) -> None:
        end = trouble.after if trouble.kind in {"stall", "cut"} else len(body)
        for begin in range(0, min(end, len(body)), _STEP):
            piece = body[begin : min(begin + _STEP, end)]
            self.wfile.write(piece)
            self.wfile.flush()
            self.hub.sent[name] += len(piece)
            if trouble.kind == "slow" and begin >= trouble.after:
                time.sleep(0.01)
        if trouble.kind == "stall":
            self.hub.wait(60)
        if trouble.kind in {"stall", "cut"}:
            self.close_connection = True


@contextmanager
def running(tls: ssl.SSLContext | None = None) -> Iterator[Hub]:
    """A hub for the time of the block."""
    hub = Hub(tls)
    try:
        yield hub
    finally:
        hub.close()


def catalogue(
    path: Path, hub: Hub, *, model: str = "tiny-hub", pinned: bool = True, extra: str = ""
) -> Path:
    """A catalogue file with the one model that `repository` makes, for --catalogue."""
    repo = "cortex-embed/tiny"
    files = ""
    onnx = [name for name in hub.repositories[repo] if name.startswith("onnx/")]
    for name, content in hub.repositories[repo].items():
        files += f'\n[[model.files]]\npath = "{name}"\n'
        if pinned:
            files += f"size = {len(content)}\n"
            files += f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
    path.write_text(
        f"""
schema = 1

[[model]]
id = "{model}"
repo = "{repo}"
revision = "{REVISION}"
aliases = ["th"]
licence = "mit"
family = "bert"
layers = 1
hidden = 32
dimensions = 32
max_tokens = 48
pooling = "mean"
normalize = true
query_prefix = "query: "
document_prefix = ""
matryoshka = []
onnx = {json.dumps(sorted(onnx, key=len))}
{extra}
{files}
""",
        encoding="utf-8",
    )
    return path


def repository(*, rows: int = 600, external: bool = False) -> dict[str, bytes]:
    """The files of a tiny encoder in Hugging Face's layout: `rows` of 128 bytes are its weights.

    A lookup and a sum is all it computes; `external` puts the weights into a file of their own.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    from make_tiny import tiny_tokenizer, tiny_vocabulary

    vocabulary = tiny_vocabulary()
    assert rows >= len(vocabulary)
    numbers = np.random.RandomState(7).random_sample((rows, 32)).astype(np.float32) - 0.5
    words = numpy_helper.from_array(numbers, "words")
    types = numpy_helper.from_array(numbers[:2] * 0.1, "types")
    inputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT64, ["batch", "length"])
        for name in ("input_ids", "attention_mask", "token_type_ids")
    ]
    output = helper.make_tensor_value_info(
        "last_hidden_state", onnx.TensorProto.FLOAT, ["batch", "length", 32]
    )
    nodes = [
        helper.make_node("Gather", ["words", "input_ids"], ["word"]),
        helper.make_node("Gather", ["types", "token_type_ids"], ["type"]),
        helper.make_node("Add", ["word", "type"], ["last_hidden_state"]),
    ]
    data = b""
    if external:
        data = words.raw_data
        words.ClearField("raw_data")
        words.data_location = onnx.TensorProto.EXTERNAL
        entry = words.external_data.add()
        entry.key, entry.value = "location", "model.onnx_data"
    graph = helper.make_graph(nodes, "tiny", inputs, [output], [words, types])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    config = {
        "model_type": "bert", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 64, "vocab_size": rows, "max_position_embeddings": 48,
    }  # fmt: skip
    files = {
        "config.json": json.dumps(config).encode(),
        "tokenizer.json": json.dumps(tiny_tokenizer(vocabulary)).encode(),
        "onnx/model.onnx": model.SerializeToString(),
    }
    if external:
        files["onnx/model.onnx_data"] = data
    return files


def write_repository(directory: Path, files: Mapping[str, bytes]) -> Path:
    """`files` on this disk, with what sentence-transformers adds to them."""
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [{"path": p, "type": f"sentence_transformers.models.{k}"} for p, k in kinds]
    more = {
        "1_Pooling/config.json": json.dumps(pooling).encode(),
        "modules.json": json.dumps(modules).encode(),
    }
    for name, content in {**files, **more}.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return directory
