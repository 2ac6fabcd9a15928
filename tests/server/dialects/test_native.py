"""Our own routes over real HTTP: what runs, the manifest, the probes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.server.conftest import SPEC, FakeProvider

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start


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


async def test_facts_of_another_model_by_name(start: Start) -> None:
    other = FakeProvider(replace(SPEC, id="other", repo="Maker/Other", aliases=()))
    async with start(others=[other]) as running:
        assert json.loads((await running.get("/model_info?model=Maker/Other"))[1]) == {
            "id": "other"
        }
        reply, body = await running.get("/model_info?model=third")
        assert reply.status == 404
        assert b"Served: tiny, other." in body
