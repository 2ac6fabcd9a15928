"""`huggingface_hub`'s InferenceClient, which posts to the very URL that it is given."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from tests.clients.conftest import LONG, TEXTS, Target, near, same


@pytest.mark.parametrize("path", ["", "/", "/embed"])
def test_feature_extraction(target: Target, path: str) -> None:
    client = InferenceClient(base_url=target.url + path)
    same(client.feature_extraction("hello world"), target.vectors(["hello world"]))
    same(client.feature_extraction(TEXTS), target.vectors(TEXTS))  # type: ignore[arg-type, unused-ignore]


@pytest.mark.parametrize(
    ("name", "mode"), [("query", "query"), ("document", "passage"), (None, None)]
)
def test_intent(target: Target, name: str | None, mode: str | None) -> None:
    client = InferenceClient(model=target.url)
    found = client.feature_extraction("hello world", prompt_name=name)
    same(found, target.vectors(["hello world"], mode=mode))


def test_normalize_and_dimensions(target: Target) -> None:
    client = InferenceClient(base_url=target.url)
    raw = client.feature_extraction("hello world", normalize=False)
    same(raw, target.vectors(["hello world"], normalize=False))
    assert abs(np.linalg.norm(raw) - 1) > 1e-3
    short = client.feature_extraction("hello world", normalize=True, dimensions=8)
    same(short, target.vectors(["hello world"], dimensions=8))


def test_truncation(target: Target) -> None:
    text = "first words " + LONG + " last words"
    client = InferenceClient(base_url=target.url)
    for direction, ours in (("right", "end"), ("left", "start")):
        found = client.feature_extraction(text, truncate=True, truncation_direction=direction)  # type: ignore[arg-type]
        same(found, target.vectors([text], truncate=ours))
    with pytest.raises(HfHubHTTPError) as caught:
        client.feature_extraction(text, truncate=False)
    assert caught.value.response.status_code in {413, 422}


def test_sentence_similarity(target: Target) -> None:
    client = InferenceClient(base_url=target.url)
    found = client.sentence_similarity("hello world", TEXTS)
    source, *others = target.vectors(["hello world", *TEXTS])
    near(found, np.array([float(source @ other) for other in others], dtype=np.float32))


def test_empty_text(tiny: Target) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        InferenceClient(base_url=tiny.url).feature_extraction("")
    assert 400 <= caught.value.response.status_code < 500


async def test_many_at_once(target: Target) -> None:
    texts = [f"text {n} " + "word " * (n % 40) for n in range(40)]
    async with AsyncInferenceClient(base_url=target.url) as client:
        rows = await asyncio.gather(*(client.feature_extraction(text) for text in texts))
    near(np.concatenate(rows), await asyncio.to_thread(target.vectors, texts))
