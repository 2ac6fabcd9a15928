"""`bench` in process counts every answer once, and no refusal or error as an answer."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from cortex_embed.commands.bench_load import ServiceTarget, measure, run
from cortex_embed.commands.bench_window import Load
from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import OverloadedError
from cortex_embed.service import EmbeddingService


class Answers:
    """A service as far as a load goes; every second request is refused."""

    def __init__(self, error: Exception | None = None) -> None:
        self.texts: list[str] = []
        self.closed = False
        self._error = error

    async def load(self) -> None: ...

    async def embed(self, request: EmbedRequest) -> object:
        await asyncio.sleep(0.001)
        self.texts += [str(text) for text in request.texts]
        if self._error is not None and len(self.texts) > 20:
            raise self._error
        if len(self.texts) % 2 == 0:
            raise OverloadedError("full", retry_after=1)
        return type("Vectors", (), {"tokens": 5})

    async def close(self) -> None:
        self.closed = True


def target_of(service: Answers) -> ServiceTarget:
    return ServiceTarget(cast(EmbeddingService, service))


def test_answers_and_refusals_are_told_apart() -> None:
    service, ticks = Answers(), list[float]()
    load = Load(3, 1, 0.4, tick=ticks.append)
    (sample,) = asyncio.run(run(target_of(service), [("one",), ("two",)], [load]))
    assert sample.requests >= 10
    assert sample.refused > 0
    assert sample.requests + sample.refused < len(service.texts)
    assert sample.tokens_per_second == pytest.approx(5 * sample.requests_per_second)
    assert set(service.texts) == {"one", "two"}
    assert 0 < sum(ticks) <= 0.4 + 1e-6
    assert service.closed


def test_an_error_amid_the_load_ends_it() -> None:
    async def load() -> None:
        target = target_of(Answers(error=RuntimeError("broken")))
        await target.open([("one",)])
        await measure(target, Load(4, 1, 5.0))

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(load())


def test_clients_may_pause() -> None:
    service = Answers()
    (sample,) = asyncio.run(run(target_of(service), [("one",)], [Load(1, 1, 0.5, pause=0.02)]))
    assert sample.requests + sample.refused <= sample.seconds / 0.02 + 1
