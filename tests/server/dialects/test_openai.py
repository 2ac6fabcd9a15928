"""OpenAI's list of models over real HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.server.conftest import FINGERPRINT, SPEC

if TYPE_CHECKING:
    from tests.server.conftest import Running


@pytest.mark.parametrize("base", ["/v1/models", "/models"])
async def test_models(running: Running, base: str) -> None:
    listing = json.loads((await running.get(base))[1])
    assert listing["object"] == "list"
    (model,) = listing["data"]
    assert model["id"] == SPEC.id
    assert (model["object"], model["owned_by"]) == ("model", "cortex-embed")
    assert (model["dimensions"], model["max_tokens"]) == (SPEC.dimensions, SPEC.max_tokens)
    assert model["fingerprint"] == FINGERPRINT
    for name in ("tiny", "Maker/Tiny-Model", "Maker%2FTiny-Model", "small"):
        async with running.http.get(f"{base}/{name}") as reply:
            assert reply.status == 200
            assert await reply.json() == model
