"""The official `voyageai` package: OpenAI's path, other words."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import voyageai

from tests.clients.conftest import LONG, TEXTS, Serve, Target, at_once, near, same

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


def api(target: Target, **more: Any) -> voyageai.Client:
    return voyageai.Client(api_key="anything", base_url=f"{target.url}/v1", **more)


@pytest.mark.parametrize(
    ("input_type", "mode"), [(None, None), ("query", "query"), ("document", "passage")]
)
def test_intent(target: Target, input_type: str | None, mode: str | None) -> None:
    reply = api(target).embed(TEXTS, model=target.spec.id, input_type=input_type)
    same(reply.embeddings, target.vectors(TEXTS, mode=mode))
    assert reply.total_tokens > len(TEXTS)


def test_every_output_dtype(target: Target) -> None:
    expected = target.vectors(TEXTS, mode="query")
    levels = np.rint(expected * np.float32(127)).astype(int)
    bits = np.packbits(expected >= 0, axis=1).astype(int)
    for dtype, rows in {
        "int8": levels,
        "uint8": levels + 128,
        "ubinary": bits,
        "binary": bits - 128,
    }.items():
        reply = api(target).embed(
            TEXTS, model=target.spec.id, input_type="query", output_dtype=dtype
        )
        np.testing.assert_array_equal(reply.embeddings, rows, err_msg=dtype)
    floats = api(target).embed(
        TEXTS, model=target.spec.id, input_type="query", output_dtype="float"
    )
    same(floats.embeddings, expected)


def test_output_dimension(target: Target) -> None:
    reply = api(target).embed(TEXTS, model=target.spec.id, output_dimension=16)
    same(reply.embeddings, target.vectors(TEXTS, dimensions=16))


def test_truncation(target: Target) -> None:
    reply = api(target).embed([LONG, "a"], model=target.spec.id, truncation=True)
    same(reply.embeddings, target.vectors([LONG, "a"]))
    with pytest.raises(voyageai.error.InvalidRequestError, match="tokens"):
        api(target).embed(["a", LONG], model=target.spec.id, truncation=False)


def test_errors(tiny: Target) -> None:
    for model, texts in (("voyage-3.5", ["a"]), (tiny.spec.id, ["a", ""]), (tiny.spec.id, [])):
        with pytest.raises(voyageai.error.InvalidRequestError):
            api(tiny).embed(texts, model=model)


async def test_many_at_once(target: Target) -> None:
    client = voyageai.AsyncClient(api_key="x", base_url=f"{target.url}/v1")
    texts = [[f"text {n}", "word " * (n % 40 + 1)] for n in range(20)]
    replies = await asyncio.gather(
        *(client.embed(batch, model=target.spec.id, input_type="query") for batch in texts)
    )
    expected = await asyncio.to_thread(
        lambda: target.vectors([t for batch in texts for t in batch], mode="query")
    )
    near([row for reply in replies for row in reply.embeddings], expected)


def test_its_retries_hide_the_start(serve: Serve, minilm_artifact: Artifact) -> None:
    early = Target(serve(minilm_artifact).listening(), minilm_artifact.spec)
    reply = api(early, max_retries=10).embed(["early"], model=early.spec.id)
    same(reply.embeddings, early.vectors(["early"]))


def test_its_retries_ride_out_an_overload(serve: Serve, minilm_artifact: Artifact) -> None:
    served = serve(minilm_artifact, "--max-queue-tokens", "3000")
    target = Target(served.ready(), minilm_artifact.spec)
    batches = [[f"batch {n} text {m} " + "word " * 60 for m in range(24)] for n in range(8)]
    client = api(target, max_retries=50)
    replies = at_once(lambda n: client.embed(batches[n], model=target.spec.id), 8)
    for batch, reply in zip(batches, replies, strict=True):
        near(reply.embeddings, target.vectors(batch))
