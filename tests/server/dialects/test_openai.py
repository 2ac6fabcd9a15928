"""OpenAI's list of models over real HTTP."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.server.conftest import SPEC, FakeProvider

if TYPE_CHECKING:
    from tests.server.conftest import Running, Start


@pytest.mark.parametrize("base", ["/v1/models", "/models"])
async def test_models(running: Running, base: str) -> None:
    listing = json.loads((await running.get(base))[1])
    assert listing["object"] == "list"
    (model,) = listing["data"]
    assert model["id"] == SPEC.id
    assert (model["object"], model["owned_by"]) == ("model", "cortex-embed")
    assert (model["dimensions"], model["max_tokens"], model["loaded"]) == (8, 16, True)
    for name in ("tiny", "Maker/Tiny-Model", "Maker%2FTiny-Model", "small"):
        async with running.http.get(f"{base}/{name}") as reply:
            assert reply.status == 200
            assert await reply.json() == model


async def test_models_are_listed_whether_loaded_or_not(start: Start) -> None:
    other = FakeProvider(replace(SPEC, id="other", repo="Maker/Other", aliases=()))
    async with start(others=[other], load_wait=5.0) as running:

        async def loaded() -> dict[str, bool]:
            listing = json.loads((await running.get("/v1/models"))[1])["data"]
            return {model["id"]: model["loaded"] for model in listing}

        assert await loaded() == {"tiny": True, "other": False}
        body = {"model": "Maker/Other", "input": "x"}
        assert (await running.post("/v1/embeddings", body))[0].status == 200
        assert await loaded() == {"tiny": True, "other": True}
