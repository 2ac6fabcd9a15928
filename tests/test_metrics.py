"""What is counted, under which names, and how cheaply."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.domain import EmbedRequest, EmbedResult, Timings, Truncation
from cortex_embed.metrics import Histogram, Metrics
from tests.test_service import SPEC

if TYPE_CHECKING:
    from cortex_embed.metrics import Family

RESULT = EmbedResult(
    np.zeros((3, 4), np.float32),
    tokens=12,
    model=SPEC,
    truncations=(Truncation(0, 20, 8),),
    timings=Timings(tokenize=0.002, queue=0.02, engine=0.2),
)
REQUEST = EmbedRequest(texts=("a", "b", "c"))


def by_name(metrics: Metrics) -> dict[str, Family]:
    found: dict[str, Family] = {}
    for family in metrics.families():
        for name in filter(None, (family.name, family.tei)):
            assert name not in found, "one name, one family"
            found[name] = family
    return found


def value(metrics: Metrics, name: str, *labels: str) -> float:
    sample = by_name(metrics)[name].samples[labels]
    return sum(sample.counts) if isinstance(sample, Histogram) else sample


def test_a_value_at_a_bound_is_below_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for one in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(one)
    histogram.observe(3.0, times=2)
    assert histogram.counts == [2, 2, 3]
    assert histogram.sum == pytest.approx(13.5)


def test_a_copy_is_left_alone() -> None:
    histogram = Histogram((1.0,))
    twin = histogram.copy()
    histogram.observe(0.5)
    assert (twin.counts, twin.sum) == ([0, 0], 0.0)


def test_a_request_for_vectors() -> None:
    metrics = Metrics()
    metrics.asked(REQUEST)
    metrics.asked(EmbedRequest(texts=("d",), single=True))
    metrics.embedded(REQUEST, RESULT, 0.25)
    assert (metrics.embeds, metrics.texts, metrics.tokens, metrics.truncations) == (2, 3, 12, 1)
    assert value(metrics, "te_request_count", "batch") == 1
    assert value(metrics, "te_request_count", "single") == 1
    assert value(metrics, "te_request_success", "batch") == 1
    assert value(metrics, "te_request_success", "single") == 0
    assert (value(metrics, "te_embed_count"), value(metrics, "te_embed_success")) == (4, 3)
    seconds = {"": 0.25, "tokenization_": 0.002, "queue_": 0.02, "inference_": 0.2}
    for stage, spent in seconds.items():
        by_request = by_name(metrics)[f"te_request_{stage}duration"].samples[()]
        by_text = by_name(metrics)[f"te_embed_{stage}duration"].samples[()]
        assert isinstance(by_request, Histogram)
        assert isinstance(by_text, Histogram)
        assert (sum(by_request.counts), sum(by_text.counts)) == (1, 3)
        assert (by_request.sum, by_text.sum) == pytest.approx((spent, 3 * spent))


def test_one_sample_has_two_names() -> None:
    metrics = Metrics()
    metrics.embedded(REQUEST, RESULT, 0.25)
    families = by_name(metrics)
    for own, tei in [
        ("embed_seconds", "te_request_duration"),
        ("queue_wait_seconds", "te_request_queue_duration"),
        ("texts_total", "te_embed_success"),
        ("queue_texts", "te_queue_size"),
        ("text_tokens", "te_request_input_length"),
        ("batch_tokens", "te_batch_next_tokens"),
    ]:
        assert families["cortex_embed_" + own] is families[tei]


def test_micro_batches_and_what_waits() -> None:
    metrics = Metrics()
    metrics.ran([5, 3, 3], 0.01)
    assert value(metrics, "te_batch_next_size") == 1
    assert value(metrics, "te_request_input_length") == 3
    tokens = by_name(metrics)["te_batch_next_tokens"].samples[()]
    assert isinstance(tokens, Histogram)
    assert tokens.sum == 11
    assert metrics.waiting() == (0, 0)
    metrics.watch(lambda: (2, 30))
    metrics.watch(other := lambda: (1, 5))
    assert metrics.waiting() == (3, 35)
    assert value(metrics, "te_queue_size") == 3
    assert value(metrics, "cortex_embed_queue_tokens") == 35
    metrics.forget(other)
    metrics.forget(other)
    assert metrics.waiting() == (2, 30)


def test_answers_and_errors() -> None:
    metrics = Metrics()
    for status in (200, 200, 400):
        metrics.answered("openai", "/v1/embeddings", status, 0.003)
    codes: tuple[str, ...] = ("invalid_text", "too_many_inputs", "overloaded", "engine_error")
    codes += ("not_found", "not_ready", "model_load_failed")
    for code in (*codes, "unauthorized", "overloaded"):
        metrics.failed(code)
    assert value(metrics, "cortex_embed_requests_total", "openai", "/v1/embeddings", "200") == 2
    assert value(metrics, "cortex_embed_request_seconds", "openai", "/v1/embeddings") == 3
    assert value(metrics, "cortex_embed_errors_total", "not_found") == 1
    assert by_name(metrics)["te_request_failure"].samples == {
        ("validation",): 2,
        ("overloaded",): 2,
        ("inference",): 1,
        ("unhealthy",): 2,
    }


def test_what_was_told_does_not_change_meanwhile() -> None:
    """Another thread reads it."""
    metrics = Metrics()
    metrics.answered("native", "/", 200, 0.1)
    metrics.embedded(REQUEST, RESULT, 0.1)
    metrics.ran([1], 0.1)
    told = metrics.families()
    before = repr([(f.name, _plain(f)) for f in told])
    metrics.answered("native", "/", 404, 0.1)
    metrics.answered("native", "/", 200, 0.1)
    metrics.failed("not_found")
    metrics.asked(REQUEST)
    metrics.embedded(REQUEST, RESULT, 0.1)
    metrics.ran([1], 0.1)
    assert repr([(f.name, _plain(f)) for f in told]) == before


def _plain(family: Family) -> object:
    return {
        key: (sample.counts, sample.sum) if isinstance(sample, Histogram) else sample
        for key, sample in family.samples.items()
    }


def test_counting_costs_a_request_next_to_nothing() -> None:
    metrics = Metrics()
    best = 1.0
    for _ in range(20):
        began = time.perf_counter()
        for _ in range(100):
            metrics.asked(REQUEST)
            metrics.embedded(REQUEST, RESULT, 0.01)
            metrics.ran([7, 7, 7], 0.01)
            metrics.answered("native", "/embed", 200, 0.01)
        best = min(best, (time.perf_counter() - began) / 100)
    assert best < 100e-6  # measured: 5 µs


def test_a_start_does_not_pay_for_it() -> None:
    code = "import sys; import cortex_embed.metrics; print('prometheus_client' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "False"
