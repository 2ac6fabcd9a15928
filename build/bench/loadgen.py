"""Load on one server from a process of its own: the client that `cortex-embed bench` has.

Its own process, so that the orchestrator, a second load, or the server's start never share its
event loop. One JSON object as the argument, one JSON object on stdout. `texts` and `batch` are
sent to OpenAI's route; `path` and `body` instead name one request, sent again and again, with
`headers` if there are some.

    python -m bench.loadgen '{"url": ..., "texts": FILE, "batch": 1, "concurrency": 64, ...}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_embed.commands.bench_http import HttpClient, refused, require_success
from cortex_embed.commands.bench_load import Answer, HttpTarget, measure
from cortex_embed.commands.bench_texts import batches

if TYPE_CHECKING:
    from collections.abc import Sequence


class OneRequest:
    """A target that is sent the same bytes each time. Implements `bench_load.Target`."""

    def __init__(self, url: str, path: str, body: bytes, headers: Sequence[str] = ()) -> None:
        self._client = HttpClient(url, headers)
        self.title = self._client.where + path
        self._request = self._client.request("POST", path, body)

    async def open(self, batches: Sequence[Sequence[str]]) -> None:
        del batches
        require_success(await self._client.send(0, self._request), self.title)

    async def send(self, slot: int, number: int) -> Answer:
        del number
        response = await self._client.send(slot, self._request)
        if refused(response):
            return Answer(None, refused=True)
        require_success(response, self.title)
        return Answer(None, seconds=response.seconds)

    async def close(self) -> None:
        await self._client.close()


def target_of(spec: dict[str, Any]) -> tuple[OneRequest | HttpTarget, list[str]]:
    """What is loaded, and the texts it is sent."""
    if "body" in spec:
        body = Path(spec["body"]).read_bytes()
        return OneRequest(spec["url"], spec["path"], body, spec.get("headers", ())), []
    texts = json.loads(Path(spec["texts"]).read_text(encoding="utf-8"))
    encoding = spec.get("encoding", "float")
    return HttpTarget(spec["url"], spec.get("model"), encoding=encoding), texts


async def load(
    spec: dict[str, Any], target: OneRequest | HttpTarget, texts: list[str]
) -> dict[str, Any]:
    try:
        await target.open(batches(texts, spec["batch"]) if texts else [])
        sample = await measure(
            target,
            concurrency=spec["concurrency"],
            batch=spec["batch"],
            seconds=spec["seconds"],
            pause=spec.get("pause", 0.0),
        )
    finally:
        await target.close()
    return asdict(sample)


if __name__ == "__main__":
    try:
        wanted = json.loads(sys.argv[1])
        print(json.dumps(asyncio.run(load(wanted, *target_of(wanted)))))
    except Exception as why:  # the orchestrator reports it in the peer's row
        print(json.dumps({"error": f"{type(why).__name__}: {why}"}))
