"""JavaScript's clients in a real Node: `openai` 6 and 7, `ollama`, and four that build on them.

openai-node asks for base64 by itself and decodes whatever comes: floats would become garbage.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.conftest import LONG, TEXTS, Serve, Target, at_once, near, same

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

HERE = Path(__file__).parent / "js"
OPENAI = ["openai", "openai7"]


@pytest.fixture(scope="module", autouse=True)
def node() -> str:
    """A missing Node is a failure: these clients are half of what this session is for."""
    found = shutil.which("node")
    if found is None:
        pytest.fail("These tests need Node 20 or newer (`node`) on the PATH.")
    if not (HERE / "node_modules").is_dir():
        pytest.fail(f"{HERE / 'node_modules'} is missing; `nox -s clients` makes it.")
    return found


def run(client: str, target: Target, texts: list[str], **more: Any) -> dict[str, Any]:
    """What the client gave: {"vectors": …}, or {"error": …}."""
    call = {"client": client, "url": target.url, "model": target.spec.id, "texts": texts} | more
    done = subprocess.run(
        ["node", str(HERE / "clients.mjs")],
        input=json.dumps(call), capture_output=True, text=True, encoding="utf-8",
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    reply: dict[str, Any] = json.loads(done.stdout)
    return reply


@pytest.mark.parametrize("client", [*OPENAI, "ollama", "ai-sdk", "huggingface"])
def test_defaults(target: Target, client: str) -> None:
    same(run(client, target, TEXTS)["vectors"], target.vectors(TEXTS))


@pytest.mark.parametrize("client", ["langchain-openai", "langchain-ollama"])
def test_langchain(target: Target, client: str) -> None:
    """Documents, then a query. It takes line breaks for spaces unless told not to."""
    texts = [text for text in TEXTS if "\n" not in text]
    same(run(client, target, texts)["vectors"], target.vectors([*texts, texts[0]]))


@pytest.mark.parametrize("client", OPENAI)
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_either_encoding(tiny: Target, client: str, encoding: str) -> None:
    reply = run(client, tiny, TEXTS, options={"encoding_format": encoding, "dimensions": 8})
    if encoding == "float":
        same(reply["vectors"], tiny.vectors(TEXTS, dimensions=8))
    else:
        assert all(isinstance(row, str) for row in reply["vectors"])
    assert reply["usage"]["total_tokens"] > len(TEXTS)


@pytest.mark.parametrize("client", OPENAI)
def test_what_is_here(tiny: Target, client: str) -> None:
    assert run(client, tiny, [], list=True)["models"] == [tiny.spec.id]


def test_what_is_here_for_ollama(tiny: Target) -> None:
    found = run("ollama", tiny, [], list=True)
    assert f"{tiny.spec.id}:latest" in found["models"]
    assert f"{tiny.spec.id}:latest" in found["running"]
    assert (found["capabilities"], found["pulled"]) == (["embedding"], "success")


def test_ollamas_embeddings_of_old(tiny: Target) -> None:
    same(run("ollama", tiny, ["hello world"], old=True)["vectors"], tiny.vectors(["hello world"]))


def test_huggingface_normalizes_and_cuts_as_asked(tiny: Target) -> None:
    raw = run("huggingface", tiny, ["hello world"], options={"normalize": False})
    same(raw["vectors"], tiny.vectors(["hello world"], normalize=False))
    cut = run(
        "huggingface", tiny, [LONG, "b " + LONG],
        options={"truncate": True, "truncation_direction": "left", "prompt_name": "query"},
    )  # fmt: skip
    same(cut["vectors"], tiny.vectors([LONG, "b " + LONG], truncate="start", mode="query"))


@pytest.mark.parametrize(
    ("client", "status"),
    [("openai", 404), ("openai7", 404), ("ollama", 404), ("ai-sdk", 404)],
)
def test_unknown_model(tiny: Target, client: str, status: int) -> None:
    error = run(client, tiny, ["a"], model="nope")["error"]
    assert error["status"] == status, error
    assert "nope" in error["message"]


@pytest.mark.parametrize("client", [*OPENAI, "ai-sdk"])
def test_empty_text(tiny: Target, client: str) -> None:
    error = run(client, tiny, ["a", ""])["error"]
    assert error["status"] == 400, error
    assert "input[1]" in error["message"]


def test_a_too_long_text_for_ollama(tiny: Target) -> None:
    error = run("ollama", tiny, [LONG], options={"truncate": False})["error"]
    assert error["status"] == 400, error
    assert "exceeds the context length" in error["message"]


@pytest.mark.parametrize("client", OPENAI)
def test_its_retries_hide_the_start(serve: Serve, minilm_artifact: Artifact, client: str) -> None:
    early = Target(serve(minilm_artifact).listening(), minilm_artifact.spec)
    near(run(client, early, ["early"], retries=20)["vectors"], early.vectors(["early"]))


def test_its_retries_ride_out_an_overload(serve: Serve, minilm_artifact: Artifact) -> None:
    served = serve(minilm_artifact, "--max-queue-tokens", "3000")
    target = Target(served.ready(), minilm_artifact.spec)
    batches = [[f"batch {n} text {m} " + "word " * 60 for m in range(24)] for n in range(6)]
    replies = at_once(lambda n: run("openai", target, batches[n], retries=60), 6)
    for batch, reply in zip(batches, replies, strict=True):
        near(reply["vectors"], target.vectors(batch))
