"""Our own routes over real HTTP: what runs, the manifest, the probes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.server.conftest import Running


async def test_status_is_exactly_four_keys(running: Running) -> None:
    reply, body = await running.get("/")
    assert reply.status == 200
    assert reply.content_type == "application/json"
    assert json.loads(body) == {
        "status": "ok",
        "model": "Maker/Tiny-Model",
        "dimensions": 8,
        "max_tokens": 16,
    }


async def test_health_and_facts(running: Running) -> None:
    assert json.loads((await running.get("/livez"))[1]) == {"status": "ok"}
    assert json.loads((await running.get("/readyz"))[1]) == {"status": "ready"}
    assert json.loads((await running.get("/model_info"))[1]) == {"id": "tiny", "pooling": "cls"}
