"""Worker: cortex-embed in this process, the way its own `embed` command drives it.

It must use nothing but what the package offers everyone: settings, service, requests.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from bench.workers.protocol import Peer, serve, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.workers.protocol import Vectors

_WINDOW = 512
_IN_FLIGHT = 3


class Ours(Peer):
    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        from cortex_embed import __version__
        from cortex_embed.composition import build_service
        from cortex_embed.config import Settings

        settings = Settings(model=(model["artifact"],), threads=threads, **options)
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._service = build_service(settings)
        self._loop.run_until_complete(self._service.load())
        facts = self._service.models()[0].facts
        said = {key: str(facts[key]) for key in ("precision", "engine", "engine_reason")}
        return {"cortex-embed": __version__} | said | versions_of("onnxruntime")

    def encode(self, texts: Sequence[str]) -> Vectors:
        return self._loop.run_until_complete(self._encode(list(texts)))

    async def _encode(self, texts: list[str]) -> Vectors:
        import numpy as np

        from cortex_embed.domain import EmbedRequest

        done, flying = [], deque[Any]()
        for first in range(0, len(texts), _WINDOW):
            request = EmbedRequest(texts=tuple(texts[first : first + _WINDOW]), priority="bulk")
            flying.append(self._loop.create_task(self._service.embed(request)))
            if len(flying) >= _IN_FLIGHT:
                done.append((await flying.popleft()).vectors)
        while flying:
            done.append((await flying.popleft()).vectors)
        return np.concatenate(done)

    def latencies(self, texts: Sequence[str]) -> list[float]:
        return self._loop.run_until_complete(self._latencies(texts))

    async def _latencies(self, texts: Sequence[str]) -> list[float]:
        from cortex_embed.domain import EmbedRequest

        seconds = []
        for text in texts:
            started = time.perf_counter()
            await self._service.embed(EmbedRequest(texts=(text,)))
            seconds.append(time.perf_counter() - started)
        return seconds

    def concurrent(self, texts: str, clients: int, seconds: float) -> dict[str, Any]:
        """Texts a second of `clients` callers with one text each: what HTTP is compared with."""
        import json
        from dataclasses import asdict
        from pathlib import Path

        from cortex_embed.commands.bench_load import ServiceTarget, measure
        from cortex_embed.commands.bench_window import Load

        target = ServiceTarget(self._service)
        batches = [(text,) for text in json.loads(Path(texts).read_text(encoding="utf-8"))]

        async def run() -> dict[str, Any]:
            await target.open(batches)
            return asdict(await measure(target, Load(clients, 1, seconds)))

        return self._loop.run_until_complete(run())

    def close(self) -> None:
        self._loop.run_until_complete(self._service.close())


if __name__ == "__main__":
    serve(Ours())
