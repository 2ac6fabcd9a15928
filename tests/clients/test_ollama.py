"""The official `ollama` package."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import ollama
import pytest

from tests.clients.conftest import LONG, TEXTS, Serve, Target, at_once, near, same

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


def api(target: Target) -> ollama.Client:
    return ollama.Client(host=target.url)


def test_embed(target: Target) -> None:
    """A list, one text, and a name with a tag, which it echoes."""
    client = api(target)
    reply = client.embed(model=target.spec.id, input=TEXTS, keep_alive="5m")
    same(reply.embeddings, target.vectors(TEXTS))
    assert reply.model == target.spec.id
    assert reply.prompt_eval_count is not None
    assert reply.prompt_eval_count > len(TEXTS)
    tagged = client.embed(model=f"{target.spec.id}:latest", input=TEXTS[0], keep_alive=-1)
    same(tagged.embeddings, target.vectors(TEXTS[:1]))


def test_embeddings_of_old(target: Target) -> None:
    reply = api(target).embeddings(model=target.spec.id, prompt="hello world")
    same([reply.embedding], target.vectors(["hello world"]))


def test_dimensions(target: Target) -> None:
    reply = api(target).embed(model=target.spec.id, input=TEXTS, dimensions=8)
    same(reply.embeddings, target.vectors(TEXTS, dimensions=8))


def test_truncation(target: Target) -> None:
    client = api(target)
    reply = client.embed(model=target.spec.id, input=["a", LONG])
    same(reply.embeddings, target.vectors(["a", LONG]))
    with pytest.raises(ollama.ResponseError, match="exceeds the context length") as caught:
        client.embed(model=target.spec.id, input=LONG, truncate=False)
    assert caught.value.status_code == 400


def test_unknown_model(tiny: Target) -> None:
    client = api(tiny)
    with pytest.raises(ollama.ResponseError, match='"nope" not found') as caught:
        client.embed(model="nope", input="a")
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError) as caught:
        client.show("nope")
    assert caught.value.status_code == 404


def test_no_input_only_loads(tiny: Target) -> None:
    assert api(tiny).embed(model=tiny.spec.id).embeddings == [[]] or not (
        api(tiny).embed(model=tiny.spec.id, input=[]).embeddings
    )


def test_what_is_here(target: Target) -> None:
    client = api(target)
    listed, *aliases = client.list().models
    assert listed.model == f"{target.spec.id}:latest"
    assert (listed.size or 0) > 0
    assert len(listed.digest or "") == 64
    assert {other.digest for other in aliases} <= {listed.digest}
    running = client.ps().models[0]
    assert (running.model, running.digest) == (listed.model, listed.digest)
    shown = client.show(target.spec.id)
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo is not None
    assert shown.modelinfo["bert.embedding_length"] == target.spec.dimensions
    assert shown.modelinfo["bert.context_length"] == target.spec.max_tokens


def test_pull(tiny: Target) -> None:
    """What is here is here; what is not is never fetched behind anybody's back."""
    client = api(tiny)
    assert client.pull(tiny.spec.id).status == "success"
    steps = [step.status for step in client.pull(tiny.spec.id, stream=True)]
    assert steps[0] == "pulling manifest"
    assert steps[-1] == "success"
    with pytest.raises(ollama.ResponseError):
        client.pull("nope")


async def test_many_at_once(target: Target) -> None:
    client = ollama.AsyncClient(host=target.url)
    texts = [[f"text {n}", "word " * (n % 40 + 1)] for n in range(40)]
    replies = await asyncio.gather(
        *(client.embed(model=target.spec.id, input=batch) for batch in texts)
    )
    expected = await asyncio.to_thread(target.vectors, [t for batch in texts for t in batch])
    near([row for reply in replies for row in reply.embeddings], expected)


def test_it_waits_for_the_model(serve: Serve, minilm_artifact: Artifact) -> None:
    """This client never retries, so the server makes it wait."""
    early = Target(serve(minilm_artifact).listening(), minilm_artifact.spec)
    reply = api(early).embed(model=early.spec.id, input="early")
    same(reply.embeddings, early.vectors(["early"]))


def test_an_overload_is_a_503_in_its_words(serve: Serve, minilm_artifact: Artifact) -> None:
    served = serve(minilm_artifact, "--max-queue-tokens", "3000")
    target = Target(served.ready(), minilm_artifact.spec)
    client = api(target)
    texts = ["word " * 100] * 20

    def outcome(_: int) -> str:
        try:
            client.embed(model=target.spec.id, input=texts)
        except ollama.ResponseError as why:
            return f"{why.status_code} {why.error}"
        return "200"

    done, *refused = sorted(set(at_once(outcome, 16)))
    assert done == "200"
    assert refused
    for busy in refused:
        assert busy.startswith("503 server busy"), busy
