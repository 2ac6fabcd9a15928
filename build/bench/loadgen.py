"""Load on one server from a process of its own: the client that `cortex-embed bench` has.

Its own process, so that the orchestrator, a second load, or the server's start never share its
event loop. One JSON object as the argument, one JSON object on stdout.

    python -m bench.loadgen '{"url": ..., "texts": FILE, "batch": 1, "concurrency": 64, ...}'
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any


async def load(spec: dict[str, Any], texts: list[str]) -> dict[str, Any]:
    from cortex_embed.commands.bench_load import HttpTarget, measure
    from cortex_embed.commands.bench_texts import batches

    target = HttpTarget(spec["url"], spec.get("model"), encoding=spec.get("encoding", "float"))
    try:
        await target.open(batches(texts, spec["batch"]))
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
        content = json.loads(Path(wanted["texts"]).read_text(encoding="utf-8"))
        print(json.dumps(asyncio.run(load(wanted, content))))
    except Exception as why:  # the orchestrator reports it in the peer's row
        print(json.dumps({"error": f"{type(why).__name__}: {why}"}))
