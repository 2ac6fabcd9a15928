"""Requests that are computed for callers without a task; `test_service` has those with one."""

from __future__ import annotations

import numpy as np
import pytest

from cortex_embed.domain import EmbedRequest, EmbedResult, Pooled, Timings
from cortex_embed.errors import (
    EngineError,
    InvalidRequestError,
    ModelNotFoundError,
    OverloadedError,
)
from cortex_embed.metrics import Histogram
from cortex_embed.service import EmbeddingService
from tests.test_service import FakeProvider, ready


async def test_many_requests_as_one() -> None:
    service, provider = await ready()
    told: list[EmbedResult | Exception] = []
    request = EmbedRequest(("a", "bb"), dimensions=2, single=True, truncate="start")
    assert service.submit(request, told.append) is not None
    assert provider.asked == {
        "texts": ("a", "bb"),
        "input_type": None,
        "truncate": "start",
    }
    rows = np.array([[3, 4, 0, 0], [0, 5, 0, 0]], np.float32)
    provider.told(Pooled(rows, 7, timings=Timings(0.1, 0.2, 0.3), lengths=(3, 4)))
    (found,) = told
    assert isinstance(found, EmbedResult)
    expected = np.array([[0.6, 0.8], [0, 1]], np.float32)
    np.testing.assert_allclose(found.vectors, expected, atol=1e-6)
    assert (found.tokens, found.lengths) == (7, (3, 4))
    metrics = service.metrics
    assert (metrics.embeds, metrics.texts, metrics.tokens) == (2, 2, 7)
    samples = {family.tei: family.samples for family in metrics.families()}
    assert samples["te_request_success"] == {("single",): 2, ("batch",): 0}
    for name in ("te_request_queue_duration", "te_embed_queue_duration"):
        (queue,) = samples[name].values()
        assert isinstance(queue, Histogram)
        assert sum(queue.counts) == 2
        assert queue.sum == pytest.approx(0.4)


async def test_what_is_wrong_with_one_of_many_is_told() -> None:
    service, provider = await ready()
    told: list[EmbedResult | Exception] = []
    request = EmbedRequest(("a",), single=True)
    for outcome in (EngineError("broke"), Pooled(np.full((1, 4), np.nan, np.float32), 1)):
        assert service.submit(request, told.append) is not None
        provider.told(outcome)
    assert [type(one) for one in told] == [EngineError, EngineError]
    with pytest.raises(InvalidRequestError):
        service.submit(EmbedRequest(("a", "\0")), told.append)
    with pytest.raises(ModelNotFoundError):
        service.submit(EmbedRequest(("a",), model="other"), told.append)
    provider.fault = OverloadedError("full")
    with pytest.raises(OverloadedError):
        service.submit(request, told.append)
    assert len(told) == 2
    assert await service.close()  # nobody is in there any more


async def test_nothing_is_submitted_that_would_have_to_wait() -> None:
    service, _ = await ready()
    assert service.submit(EmbedRequest(("later",)), print) is None
    assert service.metrics.embeds == 0
    service.drain()
    assert service.submit(EmbedRequest(("a",)), print) is None
    assert EmbeddingService([FakeProvider()]).submit(EmbedRequest(("a",)), print) is None


async def test_who_leaves_is_counted_and_not_told() -> None:
    service, provider = await ready()
    told: list[EmbedResult | Exception] = []
    submitted = service.submit(EmbedRequest(("a", "b"), single=True), told.append)
    assert submitted is not None
    submitted.cancel()
    assert provider.asked == {}
    assert service.metrics.embeds == 2
    assert not told
    assert await service.close()
