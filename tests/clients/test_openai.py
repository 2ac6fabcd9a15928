"""The official `openai` package."""

from __future__ import annotations

import asyncio
import struct
from base64 import b64decode
from typing import TYPE_CHECKING, Any

import openai
import pytest

from tests.clients.conftest import LONG, TEXTS, Serve, Target, at_once, near, same

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


def api(target: Target, **more: Any) -> openai.OpenAI:
    settings: dict[str, Any] = {
        "base_url": f"{target.url}/v1",
        "api_key": "anything",
        "max_retries": 0,
    } | more
    return openai.OpenAI(**settings)


def rows(reply: Any) -> list[list[float]]:
    assert [item.index for item in reply.data] == list(range(len(reply.data)))
    return [item.embedding for item in reply.data]


def test_defaults(target: Target) -> None:
    """Its default is base64, which it decodes."""
    with api(target) as client:
        reply = client.embeddings.create(model=target.spec.id, input=TEXTS)
        same(rows(reply), target.vectors(TEXTS))
        assert reply.model == target.spec.id
        assert reply.usage.prompt_tokens == reply.usage.total_tokens > len(TEXTS)
        single = client.embeddings.create(model=target.spec.repo, input=TEXTS[0])
        same(rows(single), target.vectors(TEXTS[:1]))


def test_floats_and_base64(target: Target) -> None:
    with api(target) as client:
        floats = client.embeddings.create(
            model=target.spec.id, input=TEXTS, encoding_format="float", user="someone"
        )
        same(rows(floats), target.vectors(TEXTS))
        raw: Any = client.embeddings.create(
            model=target.spec.id, input=TEXTS, encoding_format="base64"
        )
    width = target.spec.dimensions
    decoded = [struct.unpack(f"<{width}f", b64decode(item.embedding)) for item in raw.data]
    same(decoded, target.vectors(TEXTS))


def test_dimensions(target: Target) -> None:
    with api(target) as client:
        reply = client.embeddings.create(model=target.spec.id, input=TEXTS, dimensions=8)
        same(rows(reply), target.vectors(TEXTS, dimensions=8))
        near(rows(reply), target.shortened(TEXTS, 8))
        with pytest.raises(openai.BadRequestError) as caught:
            client.embeddings.create(model=target.spec.id, input="a", dimensions=4096)
    assert caught.value.param == "dimensions"


@pytest.mark.parametrize("base", ["/v1", "/v1/", ""])
def test_models_and_base_urls(target: Target, base: str) -> None:
    with api(target, base_url=target.url + base) as client:
        assert [model.id for model in client.models.list()] == [target.spec.id]
        assert client.models.retrieve(target.spec.repo).id == target.spec.id
        with pytest.raises(openai.NotFoundError):
            client.models.retrieve("nope")
        same(
            rows(client.embeddings.create(model=target.spec.id, input=TEXTS)),
            target.vectors(TEXTS),
        )


@pytest.mark.parametrize(
    ("given", "param"), [("", "input"), (["a", ""], "input[1]"), ([], "input")]
)
def test_empty_input(tiny: Target, given: Any, param: str) -> None:
    with api(tiny) as client, pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=tiny.spec.id, input=given)
    assert caught.value.param == param
    assert caught.value.type == "invalid_request_error"


def test_unknown_model(tiny: Target) -> None:
    with api(tiny) as client, pytest.raises(openai.NotFoundError) as caught:
        client.embeddings.create(model="text-embedding-3-small", input="a")
    assert caught.value.code == "model_not_found"
    assert tiny.spec.id in caught.value.message


def test_truncation_is_told_in_the_headers(target: Target) -> None:
    with api(target) as client:
        raw = client.embeddings.with_raw_response.create(model=target.spec.id, input=["a", LONG])
        assert raw.headers["X-Truncated-Indices"] == "1"
        same(rows(raw.parse()), target.vectors(["a", LONG]))


def test_2048_texts_in_one_request(minilm: Target) -> None:
    texts = [f"text number {n}" for n in range(2048)]
    with api(minilm) as client:
        reply = client.embeddings.create(model=minilm.spec.id, input=texts)
    found = rows(reply)
    near([found[0], found[1000], found[2047]], minilm.vectors([texts[0], texts[1000], texts[2047]]))


async def test_many_at_once(target: Target) -> None:
    texts = [[f"text {n}", f"another {n * n}", "word " * (n % 40 + 1)] for n in range(40)]
    async with openai.AsyncOpenAI(base_url=f"{target.url}/v1", api_key="x") as client:
        replies = await asyncio.gather(
            *(client.embeddings.create(model=target.spec.id, input=batch) for batch in texts)
        )
    expected = await asyncio.to_thread(target.vectors, [text for batch in texts for text in batch])
    near([row for reply in replies for row in rows(reply)], expected)


def test_token_ids(tiny: Target) -> None:
    """OpenAI's own, as its documents show them; said in a header."""
    with api(tiny) as client:
        raw = client.embeddings.with_raw_response.create(
            model=tiny.spec.id, input=[[15339, 1917], [64]]
        )
        assert raw.headers["X-Token-Ids"] == "cl100k_base"
        same(rows(raw.parse()), tiny.vectors(["hello world", "a"]))
        one = client.embeddings.create(model=tiny.spec.id, input=[15339, 1917])
        same(rows(one), tiny.vectors(["hello world"]))
        with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False"):
            client.embeddings.create(model=tiny.spec.id, input=[[39, 68, 75, 75, 78]])


def recording(statuses: list[int]) -> Any:
    """Its own HTTP client, which tells the status of every reply as well."""
    return openai.DefaultHttpxClient(
        event_hooks={"response": [lambda reply: statuses.append(reply.status_code)]}
    )


def test_its_retries_hide_the_start(serve: Serve, minilm_artifact: Artifact) -> None:
    statuses: list[int] = []
    with recording(statuses) as http:
        early = Target(serve(minilm_artifact).listening(), minilm_artifact.spec)
        # Two by default, a second apart: a busy machine may need more than two seconds.
        with api(early, max_retries=20, http_client=http) as client:
            reply = client.embeddings.create(model=early.spec.id, input="early")
    same(rows(reply), early.vectors(["early"]))
    assert statuses[-1] == 200
    assert set(statuses[:-1]) == {503}


def test_its_retries_ride_out_an_overload(serve: Serve, minilm_artifact: Artifact) -> None:
    """429 with Retry-After while the queue is full; every batch arrives, each with its vectors."""
    served = serve(minilm_artifact, "--max-queue-tokens", "3000")
    target = Target(served.ready(), minilm_artifact.spec)
    statuses: list[int] = []
    batches = [[f"batch {n} text {m} " + "word " * 60 for m in range(24)] for n in range(8)]
    with recording(statuses) as http, api(target, max_retries=100, http_client=http) as client:
        replies = at_once(
            lambda n: client.embeddings.create(model=target.spec.id, input=batches[n]), 8
        )
    for batch, reply in zip(batches, replies, strict=True):
        near(rows(reply), target.vectors(batch))
    assert set(statuses) == {200, 429}
