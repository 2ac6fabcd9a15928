"""`/metrics` and `/stats` over real HTTP: read back with prometheus_client's own parsers."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import openmetrics, parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from cortex_embed.errors import OverloadedError
from cortex_embed.server import exposition
from tests.server.conftest import FINGERPRINT

if TYPE_CHECKING:
    from tests.server.conftest import FakeProvider, Running, Start

SECRET = "nobody-may-see-this"
Samples = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str, *, strict: bool = False) -> Samples:
    read: Any = openmetrics_parser if strict else parser
    found: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
    for family in read.text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in found, "no sample twice"
            found[key] = sample.value
    return found


async def scraped(running: Running, accept: str | None = None) -> tuple[str, str]:
    headers = {} if accept is None else {"Accept": accept}
    async with running.http.get("/metrics", headers=headers) as reply:
        assert reply.status == 200
        return reply.headers["Content-Type"], await reply.text()


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


async def test_what_was_done_is_told(running: Running, provider: FakeProvider) -> None:
    await running.post("/embed", {"texts": ["a", "b", "x" * 40]})
    await running.post("/v1/embeddings", {"model": "tiny", "input": "a"})
    await running.post("/v1/embeddings", {"model": "tiny", "input": []})
    provider.failure = OverloadedError("full")
    await running.post("/embed", {"texts": ["a"]})
    await running.get("/no/such/path")
    media, text = await scraped(running)
    assert media == "text/plain; version=0.0.4; charset=utf-8"
    samples = parsed(text)
    requests = "cortex_embed_requests_total"
    assert of(samples, requests, dialect="native", route="/embed", status="200") == 1
    assert of(samples, requests, dialect="native", route="/embed", status="429") == 1
    assert of(samples, requests, dialect="openai", route="/v1/embeddings", status="400") == 1
    assert of(samples, requests, dialect="native", route="other", status="404") == 1
    seconds = "cortex_embed_request_seconds_count"
    assert of(samples, seconds, dialect="openai", route="/v1/embeddings") == 2
    assert of(samples, "cortex_embed_errors_total", code="overloaded") == 1
    assert of(samples, "te_request_failure", err="overloaded") == 1
    assert of(samples, "te_request_failure", err="validation") == 1
    assert of(samples, "te_request_count", method="single") == 1
    assert of(samples, "te_request_count", method="batch") == 2
    assert of(samples, "te_request_success", method="batch") == 1
    assert of(samples, "te_request_duration_count") == 2
    assert of(samples, "te_request_duration_bucket", le="+Inf") == 2
    assert of(samples, "te_embed_duration_count") == 4
    assert of(samples, "cortex_embed_texts_total") == of(samples, "te_embed_success") == 4
    assert of(samples, "cortex_embed_tokens_total") == 1 + 1 + 16 + 1
    assert of(samples, "cortex_embed_truncations_total") == 1
    assert of(samples, "te_queue_size") == 0
    assert of(samples, "cortex_embed_requests_in_flight") == 1  # this one
    assert of(samples, "cortex_embed_model_loaded") == 1
    about = {"model": "tiny", "precision": "", "fingerprint": FINGERPRINT}
    assert of(samples, "cortex_embed_model_info", **about) == 1


async def test_openmetrics_when_asked_for(running: Running) -> None:
    await running.post("/embed", {"texts": ["a"]})
    asked = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    media, text = await scraped(running, asked)
    assert media == openmetrics.exposition.CONTENT_TYPE_LATEST
    assert text.endswith("# EOF\n")
    samples = parsed(text, strict=True)
    assert of(samples, "cortex_embed_texts_total") == 1
    assert of(samples, "te_embed_success") == 1


@pytest.mark.parametrize(
    "accept",
    ["*/*", "text/html", "", "text/plain;version=1.0.0;escaping=x", "text/plain;version=x"],
)
async def test_the_plain_format_for_everyone_else(running: Running, accept: str) -> None:
    media, _ = await scraped(running, accept)
    assert media == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("version", ["x", "99", "1.0.0.0.0", ""])
async def test_a_version_that_is_none(running: Running, version: str) -> None:
    media, text = await scraped(running, f"application/openmetrics-text; version={version}")
    assert "version=1.0.0" in media
    assert parsed(text, strict=True)


async def test_clients_cannot_make_labels(running: Running) -> None:
    """However many paths, methods, ids and models they think of."""
    methods = ("PUT", "DELETE", "PROPFIND", "OPTIONS", "TRACE")
    for number in range(50):
        method = methods[number % len(methods)]
        headers = {"X-Request-Id": f"id-{number}", "traceparent": f"{number}"}
        async with running.http.request(method, f"/v1/{number}", headers=headers) as reply:
            assert reply.status == 404
        async with running.http.request(method, "/embed") as reply:
            assert reply.status == 405
        await running.get(f"/v1/models/{number}")
        await running.post("/v1/embeddings", {"model": f"m{number}", "input": "a"})
    series = [key for key in parsed((await scraped(running))[1]) if "requests_total" in key[0]]
    assert len(series) == 4
    assert ("route", "/v1/models/{id}") in {label for _, labels in series for label in labels}


async def test_no_text_and_no_key(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with start(token=SECRET) as running:
        running.http.headers["Authorization"] = f"Bearer {SECRET}"
        await running.post(f"/embed?{SECRET}", {"texts": [SECRET]})
        await running.post(f"/{SECRET}", {"texts": [SECRET], "model": SECRET})
        for accept in (None, "application/openmetrics-text"):
            assert SECRET not in (await scraped(running, accept))[1]
        del running.http.headers["Authorization"]
        for path in ("/metrics", "/stats"):
            reply, _ = await running.get(path)
            assert reply.status == 401
    assert SECRET not in caplog.text


async def test_a_client_that_leaves_is_counted(running: Running, provider: FakeProvider) -> None:
    provider.gate.clear()
    _, writer = await running.raw()
    body = b'{"texts": ["a"]}'
    head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await asyncio.wait_for(provider.started.wait(), 5)
    assert of(parsed((await scraped(running))[1]), "cortex_embed_requests_in_flight") == 2
    writer.close()
    for _ in range(100):
        if provider.cancelled:
            break
        await asyncio.sleep(0.02)
    samples = parsed((await scraped(running))[1])
    left = {"dialect": "native", "route": "/embed", "status": "499"}
    assert of(samples, "cortex_embed_requests_total", **left) == 1
    assert of(samples, "cortex_embed_requests_in_flight") == 1


async def test_while_loading(start: Start, provider: FakeProvider) -> None:
    provider.load_gate.clear()
    async with start() as running:
        samples = parsed((await scraped(running))[1])
        assert of(samples, "cortex_embed_model_loaded") == 0
        assert json.loads((await running.get("/stats"))[1])["requests"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="prometheus_client reads /proc")
async def test_the_process(running: Running) -> None:
    samples = parsed((await scraped(running))[1])
    assert of(samples, "process_resident_memory_bytes") > 2**20
    assert of(samples, "process_cpu_seconds_total") > 0
    assert of(samples, "process_start_time_seconds") > 1_700_000_000


def test_the_process_where_there_is_no_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prometheus_client.ProcessCollector.collect", lambda _: [])
    samples = parsed(exposition.render([], "", began=1_761_500_000.5).body.decode())
    assert of(samples, "process_cpu_seconds_total") > 0
    assert of(samples, "process_start_time_seconds") == 1_761_500_000.5


async def test_stats(running: Running, provider: FakeProvider) -> None:
    await running.post("/embed", {"texts": ["a", "b", "x" * 40]})
    provider.failure = OverloadedError("full")
    await running.post("/embed", {"texts": ["a"]})
    reply, body = await running.get("/stats")
    assert reply.content_type == "application/json"
    told = json.loads(body)
    assert 0 < told.pop("uptime") < 60
    rss = told.pop("rss")
    assert rss > 2**20 if sys.platform == "linux" else rss is None
    assert told == {
        "in_flight": 1,
        "queued_texts": 0,
        "queued_tokens": 0,
        "requests": 2,
        "texts": 3,
        "tokens": 18,
        "truncated": 1,
    }
