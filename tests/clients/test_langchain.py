"""`langchain-openai`, which sends OpenAI's token ids by default, and `langchain-ollama`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tiktoken
from langchain_ollama import OllamaEmbeddings
from langchain_openai import OpenAIEmbeddings

from tests.clients.conftest import TEXTS, Target, near, same

CHINESE = "敏捷的棕色狐狸跳过了懒狗。我们的数据库里有很多文档,需要向量。😀"


def openai(target: Target, **more: Any) -> OpenAIEmbeddings:
    settings = {"model": target.spec.id, "base_url": f"{target.url}/v1", "api_key": "x"} | more
    return OpenAIEmbeddings(**settings)


def ollama(target: Target) -> OllamaEmbeddings:
    return OllamaEmbeddings(model=target.spec.id, base_url=target.url)


def test_token_ids_by_default(target: Target) -> None:
    embeddings = openai(target)
    assert embeddings.check_embedding_ctx_length
    same(embeddings.embed_documents(TEXTS), target.vectors(TEXTS))
    same([embeddings.embed_query("hello world")], target.vectors(["hello world"]))


async def test_token_ids_without_waiting(target: Target) -> None:
    embeddings = openai(target)
    same(await embeddings.aembed_documents(TEXTS), target.vectors(TEXTS))
    same([await embeddings.aembed_query("a question?")], target.vectors(["a question?"]))


def test_strings_where_asked(target: Target) -> None:
    embeddings = openai(target, check_embedding_ctx_length=False)
    same(embeddings.embed_documents(TEXTS), target.vectors(TEXTS))


def test_more_documents_than_one_request_holds(target: Target) -> None:
    texts = [f"document {n}: {CHINESE[n % 30 :]}" for n in range(300)]
    embeddings = openai(target, chunk_size=64, dimensions=16)
    near(embeddings.embed_documents(texts), target.vectors(texts, dimensions=16))


@pytest.mark.parametrize("text", ["A sentence of words. " * 3000, CHINESE * 700], ids=["en", "zh"])
def test_texts_that_it_cuts_in_the_middle_of_a_word_or_character(target: Target, text: str) -> None:
    """Over 8,191 ids it sends chunks, and averages their vectors by their lengths."""
    encoding = tiktoken.get_encoding("cl100k_base")
    ids = encoding.encode(text, disallowed_special=())
    chunks = [ids[at : at + 8191] for at in range(0, len(ids), 8191)]
    assert len(chunks) > 1
    parts = target.vectors([encoding.decode(chunk) for chunk in chunks])
    average = np.average(parts, axis=0, weights=[len(chunk) for chunk in chunks])
    near(openai(target).embed_query(text), average / np.linalg.norm(average))


@pytest.mark.parametrize("size", [17, 31, 64])
def test_every_small_chunk_is_read(tiny: Target, size: int) -> None:
    """Borders in every place: half a character, between an apostrophe and its letter, …"""
    text = (
        "Don't stop!\n\n  We'll — naïvely — " + CHINESE + " \t\n 1234567 👍🏽 {'a': [1, 2]}\r\n" * 3
    )
    embeddings = openai(tiny, embedding_ctx_length=size)
    encoding = tiktoken.get_encoding("cl100k_base")
    ids = encoding.encode(text)
    whole = [ids[at : at + size] for at in range(0, len(ids) - size, size)]
    for chunk in whole:
        expected = tiny.vectors([encoding.decode(chunk)])
        reply = tiny.client.post("/v1/embeddings", {"model": tiny.spec.id, "input": [chunk]})
        assert reply.status == 200, reply.body
        same([reply.json["data"][0]["embedding"]], expected)
    assert len(embeddings.embed_query(encoding.decode(ids[: size * 2]))) == tiny.spec.dimensions


def test_ids_of_a_newer_vocabulary_are_refused(tiny: Target) -> None:
    """What `o200k_base` gives for a Chinese text; the advice names LangChain's switch."""
    ids = [78_000, 120_345, 199_997, 3221]
    reply = tiny.client.post("/v1/embeddings", {"model": tiny.spec.id, "input": [ids]})
    assert reply.status == 400
    assert "check_embedding_ctx_length=False" in reply.json["error"]["message"]


def test_ollama(target: Target) -> None:
    embeddings = ollama(target)
    same(embeddings.embed_documents(TEXTS), target.vectors(TEXTS))
    same([embeddings.embed_query("hello world")], target.vectors(["hello world"]))


async def test_ollama_without_waiting(target: Target) -> None:
    embeddings = ollama(target)
    same(await embeddings.aembed_documents(TEXTS), target.vectors(TEXTS))
