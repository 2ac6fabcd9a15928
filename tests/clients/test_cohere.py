"""The official `cohere` package, both versions of its API."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import cohere
import numpy as np
import pytest

from tests.clients.conftest import LONG, TEXTS, Serve, Target, near, same

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

INTENTS = {"search_query": "query", "search_document": "passage", "classification": None}


def v1(target: Target) -> cohere.Client:
    return cohere.Client(api_key="anything", base_url=target.url)


def v2(target: Target) -> cohere.ClientV2:
    return cohere.ClientV2(api_key="anything", base_url=target.url)


@pytest.mark.parametrize(("input_type", "mode"), INTENTS.items())
def test_intent(target: Target, input_type: Any, mode: str | None) -> None:
    expected = target.vectors(TEXTS, mode=mode)
    floats = v1(target).embed(texts=TEXTS, model=target.spec.id, input_type=input_type)
    assert floats.response_type == "embeddings_floats"
    same(floats.embeddings, expected)
    assert floats.texts == TEXTS
    by_type = v2(target).embed(
        texts=TEXTS, model=target.spec.id, input_type=input_type, embedding_types=["float"]
    )
    assert by_type.response_type == "embeddings_by_type"
    same(by_type.embeddings.float_, expected)
    assert by_type.meta is not None
    assert by_type.meta.billed_units is not None
    assert (by_type.meta.billed_units.input_tokens or 0) > len(TEXTS)


def packed(vectors: Any) -> dict[str, Any]:
    """Each type as Cohere documents it, computed here from the floats."""
    levels = np.rint(vectors * np.float32(127)).astype(int)
    bits = np.packbits(vectors >= 0, axis=1).astype(int)
    return {
        "int8": levels.tolist(),
        "uint8": (levels + 128).tolist(),
        "ubinary": bits.tolist(),
        "binary": (bits - 128).tolist(),
    }


@pytest.mark.parametrize("version", [v1, v2])
def test_every_embedding_type(target: Target, version: Any) -> None:
    expected = target.vectors(TEXTS, mode="passage")
    reply = version(target).embed(
        texts=TEXTS, model=target.spec.id, input_type="search_document",
        embedding_types=["float", "int8", "uint8", "binary", "ubinary", "base64"],
    )  # fmt: skip
    found = reply.embeddings
    same(found.float_, expected)
    for name, rows in packed(expected).items():
        assert getattr(found, name) == rows, name
    decoded = [np.frombuffer(base64.b64decode(row), "<f4") for row in found.base64]
    same(decoded, expected)


def test_output_dimension(target: Target) -> None:
    reply = v2(target).embed(
        texts=TEXTS, model=target.spec.id, input_type="search_query",
        embedding_types=["float", "ubinary"], output_dimension=16,
    )  # fmt: skip
    expected = target.vectors(TEXTS, mode="query", dimensions=16)
    same(reply.embeddings.float_, expected)
    assert reply.embeddings.ubinary == packed(expected)["ubinary"]


def test_truncate(target: Target) -> None:
    both = ["first words " + LONG, LONG + " last words"]
    for truncate, ours in (("END", "end"), ("START", "start")):
        reply = v2(target).embed(
            texts=both, model=target.spec.id, input_type="search_document",
            embedding_types=["float"], truncate=truncate,
        )  # fmt: skip
        same(reply.embeddings.float_, target.vectors(both, mode="passage", truncate=ours))
    with pytest.raises(cohere.BadRequestError):
        v2(target).embed(
            texts=both, model=target.spec.id, input_type="search_document",
            embedding_types=["float"], truncate="NONE",
        )  # fmt: skip


def test_it_sends_many_texts_in_parallel_batches(target: Target) -> None:
    texts = [f"text number {n}" for n in range(500)]
    reply = v1(target).embed(texts=texts, model=target.spec.id, input_type="search_document")
    near(reply.embeddings, target.vectors(texts, mode="passage"))


def test_errors(tiny: Target) -> None:
    with pytest.raises(cohere.NotFoundError):
        v1(tiny).embed(texts=["a"], model="embed-v4.0", input_type="search_query")
    with pytest.raises(cohere.NotFoundError) as missing:
        v2(tiny).embed(
            texts=["a"], model="embed-v4.0", input_type="search_query", embedding_types=["float"]
        )
    assert "embed-v4.0" in str(missing.value.body)
    with pytest.raises(cohere.BadRequestError):
        v2(tiny).embed(
            texts=["a", ""], model=tiny.spec.id, input_type="search_query",
            embedding_types=["float"],
        )  # fmt: skip


async def test_many_at_once(target: Target) -> None:
    client = cohere.AsyncClientV2(api_key="x", base_url=target.url)
    texts = [[f"text {n}", "word " * (n % 40 + 1)] for n in range(40)]
    replies = await asyncio.gather(
        *(
            client.embed(
                texts=batch, model=target.spec.id, input_type="search_query",
                embedding_types=["float"],
            )
            for batch in texts
        )
    )  # fmt: skip
    expected = await asyncio.to_thread(
        lambda: target.vectors([t for batch in texts for t in batch], mode="query")
    )
    near([row for reply in replies for row in reply.embeddings.float_ or []], expected)


def test_its_retries_hide_the_start(serve: Serve, minilm_artifact: Artifact) -> None:
    early = Target(serve(minilm_artifact).listening(), minilm_artifact.spec)
    reply = v2(early).embed(
        texts=["early"], model=early.spec.id, input_type="search_document",
        embedding_types=["float"], request_options={"max_retries": 20},
    )  # fmt: skip
    same(reply.embeddings.float_, early.vectors(["early"], mode="passage"))
