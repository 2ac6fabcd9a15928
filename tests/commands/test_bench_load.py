"""`bench` counts every answer once, and no refusal or error as an answer."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.commands import bench_load
from cortex_embed.errors import TargetError
from tests.commands.openai_stub import body, response, server


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([1, 50, 95, 99, 100]))
def test_percentiles_are_values_that_so_many_do_not_exceed(values: list[float], q: int) -> None:
    found = bench_load.percentile(sorted(values), q)
    assert found in values
    assert sum(v <= found for v in values) >= q / 100 * len(values)


def test_every_answer_is_counted_with_its_tokens() -> None:
    async def run() -> bench_load.Sample:
        async with server(lambda _: response(body(1, tokens=5))) as url:
            target = bench_load.HttpTarget(url, "m")
            await target.open([("one",)])
            sample = await bench_load.measure(target, concurrency=3, batch=1, seconds=0.3)
            await target.close()
            return sample

    sample = asyncio.run(run())
    assert sample.requests >= 10
    assert sample.tokens_per_second == pytest.approx(5 * sample.requests_per_second)
    assert sample.p50_ms <= sample.p95_ms <= sample.p99_ms <= sample.max_ms


def test_refused_requests_are_no_answers() -> None:
    calls = iter(range(1 << 30))

    def answer(_: bytes) -> bytes:
        if next(calls) % 2:
            return response(b"{}", "429 Too Many Requests")
        return response(body(1))

    async def run() -> bench_load.Sample:
        async with server(answer) as url:
            target = bench_load.HttpTarget(url, "m")
            await target.open([("one",)])
            sample = await bench_load.measure(target, concurrency=2, batch=1, seconds=0.5)
            await target.close()
            return sample

    sample = asyncio.run(run())
    assert sample.refused > 0
    assert sample.requests > 0


def test_a_closing_server_is_connected_to_anew() -> None:
    async def run() -> bench_load.Sample:
        async with server(lambda _: response(body(1), "200 OK", "Connection: close")) as url:
            target = bench_load.HttpTarget(url, "m")
            await target.open([("one",)])
            sample = await bench_load.measure(target, concurrency=2, batch=1, seconds=0.3)
            await target.close()
            return sample

    assert asyncio.run(run()).requests > 0


def test_the_first_listed_model_is_named() -> None:
    seen = []

    def answer(request: bytes) -> bytes:
        seen.append(request)
        return response(b'{"data": [{"id": "first"}]}' if b"GET /v1/models" in request else body(1))

    async def run() -> str:
        async with server(answer) as url:
            target = bench_load.HttpTarget(url, None, headers=["X-Test: yes"])
            await target.open([("one",)])
            await target.close()
            return target.title

    assert asyncio.run(run()).endswith(", first")
    assert b'"model": "first"' in seen[1]
    assert b"X-Test: yes\r\n" in seen[1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (response(b'{"error": "no such model"}', "404 Not Found"), "404: .*no such model"),
        (response(b"[1, 2]"), "did not answer as OpenAI's"),
        (response(body(2)), "gave 2 vectors for 1 texts"),
        (b"nonsense\r\n\r\n", r"not HTTP/1\.1"),
    ],
)
def test_wrong_answers_are_errors(answer: bytes, message: str) -> None:
    async def run() -> None:
        async with server(lambda _: answer) as url:
            target = bench_load.HttpTarget(url, "m")
            try:
                await target.open([("one",)])
            finally:
                await target.close()

    with pytest.raises(TargetError, match=message):
        asyncio.run(run())


def test_an_error_amid_the_load_ends_it() -> None:
    calls = iter(range(1 << 30))

    def answer(_: bytes) -> bytes:
        return response(body(1)) if next(calls) < 20 else response(b"broken", "500 Oops")

    async def run() -> None:
        async with server(answer) as url:
            target = bench_load.HttpTarget(url, "m")
            await target.open([("one",)])
            try:
                await bench_load.measure(target, concurrency=4, batch=1, seconds=5)
            finally:
                await target.close()

    with pytest.raises(TargetError, match="500: broken"):
        asyncio.run(run())
