"""Real clients against a real process, and the promise: one text, one vector."""

from __future__ import annotations

import json
import shutil
import subprocess
from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import openai
import pytest

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact
    from tests.e2e.conftest import Serve
    from tests.e2e.process import Client

pytestmark = pytest.mark.e2e
TEXTS = ["hello world", "The quick brown fox.", "a", "naïve café 😀 北京"]


def close(left: object, right: object) -> None:
    np.testing.assert_allclose(np.array(left), np.array(right), rtol=0, atol=1e-6)


def official(client: Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.url}/v1", api_key="anything", timeout=20)


def test_openai_client_with_defaults(serve: Serve, model: Artifact) -> None:
    """Its default is base64; floats on request; both are /embed's vectors."""
    client = serve(model).ready()
    expected = client.embed(TEXTS)
    with official(client) as api:
        reply = api.embeddings.create(model=model.spec.id, input=TEXTS)
        close([item.embedding for item in reply.data], expected)
        assert [item.index for item in reply.data] == [0, 1, 2, 3]
        assert reply.model == model.spec.id
        assert reply.usage.total_tokens == reply.usage.prompt_tokens > len(TEXTS)
        plain = api.embeddings.create(model=model.spec.id, input=TEXTS, encoding_format="float")
        close([item.embedding for item in plain.data], expected)
        single = api.embeddings.create(model=model.spec.repo, input=TEXTS[0])
        close(single.data[0].embedding, expected[0])
        short = api.embeddings.create(model=model.spec.id, input=TEXTS[0], dimensions=4)
        cut = np.array(expected[0][:4])
        close(short.data[0].embedding, cut / np.linalg.norm(cut))
        assert [listed.id for listed in api.models.list()] == [model.spec.id]
        assert api.models.retrieve(model.spec.repo).id == model.spec.id


def test_openai_client_sees_typed_errors(client: Client, tiny_mean: Artifact) -> None:
    with official(client) as api:
        with pytest.raises(openai.NotFoundError, match="not served here"):
            api.embeddings.create(model="nope", input="a")
        with pytest.raises(openai.BadRequestError) as caught:
            api.embeddings.create(model=tiny_mean.spec.id, input=["a", ""])
    assert caught.value.param == "input[1]"
    assert caught.value.type == "invalid_request_error"


def test_openai_client_rides_out_the_load(serve: Serve, model: Artifact) -> None:
    """503 with Retry-After while loading: its retries, one second apart, hide the start."""
    client = serve(model).listening()
    with official(client) as api:
        # Twice by default: two seconds, which a busy machine may need more than.
        api.max_retries = 20
        reply = api.embeddings.create(model=model.spec.id, input="early")
    close(reply.data[0].embedding, client.embed(["early"])[0])


def test_plain_curl(client: Client, tiny_mean: Artifact) -> None:
    """No headers: curl then says that JSON is a form."""
    curl = shutil.which("curl")
    if curl is None:
        pytest.skip("no curl on this machine")

    def run(path: str, body: object) -> str:
        done = subprocess.run(
            [curl, "-sS", "--fail-with-body", "--max-time", "20", client.url + path, "-d", "@-"],
            input=json.dumps(body),
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return done.stdout

    expected = client.embed(TEXTS)
    close(json.loads(run("/embed", {"texts": TEXTS}))["embeddings"], expected)
    compatible = run("/v1/embeddings", {"model": tiny_mean.spec.id, "input": TEXTS})
    close([item["embedding"] for item in json.loads(compatible)["data"]], expected)
    # Above 1 MiB curl asks first whether to send.
    long = json.loads(run("/embed", {"texts": ["word " * 150_000] * 2}))
    assert len(long["truncated"]) == 2


def test_one_text_has_one_vector(serve: Serve, model: Artifact) -> None:
    """Alone, among 64 of mixed lengths, twice, through both dialects: within 1e-6."""
    client = serve(model).ready()
    text = "The same text always gives the same vector."
    alone = client.embed([text])[0]
    assert abs(np.linalg.norm(alone) - 1) < 1e-6
    others = [f"text number {n} " + "and more words " * (n * 3 % 60) for n in range(63)]
    close(client.embed([text, *others])[0], alone)
    reply = client.post("/v1/embeddings", {"model": model.spec.id, "input": [*others, text]})
    close(reply.json["data"][-1]["embedding"], alone)
    close(client.embed([text])[0], alone)
    close(client.embed([text, text]), [alone, alone])
    reply = client.post("/v1/embeddings", {"model": model.spec.id, "input": text})
    close(reply.json["data"][0]["embedding"], alone)


def test_one_text_has_one_vector_whoever_asks_at_the_same_time(
    serve: Serve, model: Artifact
) -> None:
    """On sixteen connections at once, in two dialects and two encodings: within 1e-6."""
    client = serve(model).ready()
    texts = [f"question number {n}" + ", and why?" * (n % 3) for n in range(8)]
    alone = {one: client.embed([one])[0] for one in texts}
    found: list[tuple[str, object]] = []

    def openais(encoding: Literal["float", "base64"], first: int) -> None:
        with official(client) as api:
            for one in (texts[first:] + texts[:first]) * 3:
                reply = api.embeddings.create(
                    model=model.spec.id, input=one, encoding_format=encoding
                )
                numbers: Any = reply.data[0].embedding
                if encoding == "base64":
                    numbers = np.frombuffer(b64decode(numbers), "<f4")
                found.append((one, numbers))

    def ours(first: int) -> None:
        for one in (texts[first:] + texts[:first]) * 3:
            vector = client.embed([one])[0]
            found.append((one, vector))

    jobs = [partial(openais, encoding, n) for n in range(4) for encoding in ("float", "base64")]
    jobs += [partial(ours, n) for n in range(8)]
    with ThreadPoolExecutor(len(jobs)) as pool:
        for job in [pool.submit(job) for job in jobs]:
            job.result(60)
    assert len(found) == len(jobs) * 3 * len(texts)
    for one, vector in found:
        close(vector, alone[one])


def test_intent_adds_the_prefix_only_when_stated(serve: Serve, tiny: Artifact) -> None:
    client = serve(tiny).ready()
    bare = client.embed(["find me"])[0]
    close(
        client.embed(["find me"], mode="passage")[0],
        client.embed([tiny.spec.document_prefix + "find me"])[0],
    )
    close(
        client.embed(["find me"], mode="query")[0],
        client.embed([tiny.spec.query_prefix + "find me"])[0],
    )
    reply = client.post("/v1/embeddings", {"model": tiny.spec.id, "input": "find me"})
    close(reply.json["data"][0]["embedding"], bare)


def test_model_info_tells_what_a_client_can_use(client: Client, tiny_mean: Artifact) -> None:
    facts = client.get("/model_info").json
    spec = tiny_mean.spec
    assert facts["id"] == spec.id
    assert facts["dimensions"] == spec.dimensions
    assert facts["max_tokens"] == spec.max_tokens
    assert facts["pooling"] == "mean"
    assert str(tiny_mean.directory) not in json.dumps(facts)
