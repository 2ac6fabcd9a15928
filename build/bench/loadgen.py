"""Load on one server from a process of its own: the client that `cortex-embed bench` has.

Its own process, so that the orchestrator, a second load, or the server's start never share its
thread. One JSON object as the argument, one JSON object on stdout. `texts` and `batch` are
sent to OpenAI's route; `path` and `body` instead name one request, sent again and again, with
`headers` if there are some.

    python -m bench.loadgen '{"url": ..., "texts": FILE, "batch": 1, "concurrency": 64, ...}'
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_embed.commands.bench_client import HttpClient
from cortex_embed.commands.bench_http import require_success
from cortex_embed.commands.bench_loop import HttpTarget, run
from cortex_embed.commands.bench_texts import batches
from cortex_embed.commands.bench_window import Load

if TYPE_CHECKING:
    from collections.abc import Sequence


class OneRequest:
    """A target that is sent the same bytes each time. Implements `bench_loop.Target`."""

    def __init__(self, url: str, path: str, body: bytes, headers: Sequence[str] = ()) -> None:
        self.client = HttpClient(url, headers)
        self.where = self.client.where + path
        self.requests = [self.client.request("POST", path, body)]

    def open(self, batches: Sequence[Sequence[str]]) -> None:
        del batches
        require_success(self.client.send(self.requests[0]), self.where)

    def tokens(self, body: bytes) -> int | None:
        del body
        return None


def target_of(spec: dict[str, Any]) -> tuple[OneRequest | HttpTarget, list[str]]:
    """What is loaded, and the texts it is sent."""
    if "body" in spec:
        body = Path(spec["body"]).read_bytes()
        return OneRequest(spec["url"], spec["path"], body, spec.get("headers", ())), []
    texts = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
    encoding = spec.get("encoding", "float")
    return HttpTarget(spec["url"], spec.get("model"), encoding=encoding), texts


def load(spec: dict[str, Any]) -> dict[str, Any]:
    """The figures of the load that `spec` asks for. Raises EmbedError, OSError."""
    target, texts = target_of(spec)
    wanted = Load(spec["concurrency"], spec["batch"], spec["seconds"], spec.get("pause", 0.0))
    (sample,) = run(target, batches(texts, spec["batch"]) if texts else [], [wanted])
    return asdict(sample)


if __name__ == "__main__":
    try:
        print(json.dumps(load(json.loads(sys.argv[1]))))
    except Exception as why:  # the orchestrator reports it in the peer's row
        print(json.dumps({"error": f"{type(why).__name__}: {why}"}))
