from __future__ import annotations

import asyncio
import hashlib
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cortex_embed.commands.instances import identity
from cortex_embed.composition import build_service, locate_model
from cortex_embed.config import Settings
from cortex_embed.domain import EmbedRequest, Pooled
from cortex_embed.errors import (
    InvalidRequestError,
    ModelFileError,
    ModelNotFoundError,
    TextError,
)
from cortex_embed.models.catalogue import catalogue
from cortex_embed.providers.hashing import SPEC, HashingProvider, vectors_of

HASH = Settings(model=("hash",))


async def embed(*texts: str | tuple[int, ...], **asked: object) -> Pooled:
    arguments = {"input_type": None, "truncate": "end", "priority": "bulk"} | asked
    return await HashingProvider().embed(texts, **arguments)  # type: ignore[arg-type]


async def test_a_vector_is_the_hash_of_the_bytes_and_nothing_else() -> None:
    found = await embed("naïve", "b", "naïve")
    digest = hashlib.shake_128("naïve".encode()).digest(384)
    expected = (np.array(list(digest), dtype=np.float32) - np.float32(127.5)) / np.float32(127.5)
    assert found.vectors.dtype == np.float32
    assert found.vectors.shape == (3, 384)
    assert found.tokens == 6 + 1 + 6
    np.testing.assert_array_equal(found.vectors[0], expected)
    np.testing.assert_array_equal(found.vectors[0], found.vectors[2])
    assert np.abs(found.vectors[0] - found.vectors[1]).max() > 0.1
    assert np.abs(vectors_of([b""])).min() > 0  # so that every row has a length


async def test_ids_are_bytes_there_and_back() -> None:
    provider = HashingProvider()
    (tokens,) = await provider.tokenize(["aß🙂"], input_type=None, special=True)
    assert [token.text for token in tokens] == ["a", "ß", "ß", "🙂", "🙂", "🙂", "🙂"]
    assert [(token.start, token.stop) for token in tokens][:3] == [(0, 1), (1, 2), (1, 2)]
    ids = tuple(token.id for token in tokens)
    assert await provider.detokenize([ids], skip_special=True) == ["aß🙂"]
    assert await provider.detokenize([[0xC3]], skip_special=True) == ["�"]
    both = await embed("aß🙂", ids)
    np.testing.assert_array_equal(both.vectors[0], both.vectors[1])


async def test_a_stated_intent_shows() -> None:
    query = (await embed("a", input_type="query")).vectors
    np.testing.assert_array_equal(query, (await embed("query: a")).vectors)
    np.testing.assert_array_equal(
        (await embed("a", input_type="document")).vectors, (await embed("a")).vectors
    )


async def test_truncation_is_counted_and_has_a_direction() -> None:
    text = "a" * 300 + "b" * 300
    end = await embed("x", text)
    start = await embed("x", text, truncate="start")
    (cut,) = end.truncations
    assert (cut.index, cut.tokens, cut.used) == (1, 600, 512)
    np.testing.assert_array_equal(end.vectors[1], vectors_of([text[:512].encode()])[0])
    np.testing.assert_array_equal(start.vectors[1], vectors_of([text[-512:].encode()])[0])
    with pytest.raises(TextError, match="600 tokens; this model reads at most 512") as caught:
        await embed("x", text, truncate="none")
    assert caught.value.index == 1


async def test_ids_that_are_no_bytes_are_refused() -> None:
    with pytest.raises(TextError, match="token id 15339 at position 1 is outside") as caught:
        await embed("x", (1, 15339))
    assert caught.value.index == 1
    with pytest.raises(TextError, match="prefix"):
        await embed((1, 2), input_type="query")


async def test_token_states_are_one_row_a_byte() -> None:
    found = await HashingProvider().token_states(
        ["ab", "a"], input_type=None, truncate="end"
    )  # fmt: skip
    assert [state.shape for state in found.states] == [(2, 384), (1, 384)]
    assert found.tokens == 3
    np.testing.assert_array_equal(found.states[0][0], found.states[1][0])


async def test_the_service_takes_it_only_by_name(caplog: pytest.LogCaptureFixture) -> None:
    service = build_service(HASH)
    with caplog.at_level(logging.WARNING):
        await service.load()
    assert "vectors mean nothing" in caplog.text
    result = await service.embed(EmbedRequest(texts=("a",), dimensions=3))
    assert result.model.id == "hash"
    assert np.linalg.norm(result.vectors[0]) == pytest.approx(1, abs=1e-6)
    with pytest.raises(InvalidRequestError):
        await service.embed(EmbedRequest(texts=("",)))
    await service.close()

    with pytest.raises(ModelNotFoundError):
        locate_model(Settings(), "hashing")
    assert not any(entry.spec.answers_to("hash") for entry in catalogue())


def test_it_says_what_it_is() -> None:
    model = locate_model(HASH, "hash").model
    assert "vectors mean nothing" in model.origin
    assert "vectors mean nothing" in str(model.facts["notes"])
    assert model.facts["fingerprint"] == model.fingerprint
    assert model.fingerprint.startswith("cx1:")
    assert identity(HASH).model == SPEC.id
    assert locate_model(Settings(precision="auto"), "hash").choice.precision == "fp32"
    with pytest.raises(ModelFileError, match="--precision int8"):
        locate_model(Settings(precision="int8"), "hash")


@pytest.mark.parametrize(
    ("command", "stdin", "expected"),
    [
        (["embed", "--model", "hash", "hello"], "", "0."),
        (["bench", "--model", "hash", "--duration", "0.2", "--concurrency", "1"], "", "hash"),
        (["selftest", "--model", "hash"], "", "nothing to test"),
    ],
)
def test_commands(command: list[str], stdin: str, expected: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cortex_embed", *command],
        input=stdin, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert expected in done.stdout
    assert "vectors mean nothing" in done.stderr + done.stdout


def test_rpc_speaks_of_it_too(tmp_path: Path) -> None:
    request = '{"jsonrpc": "2.0", "id": 1, "method": "embed", "params": {"texts": ["a"]}}\n'
    done = subprocess.run(
        [sys.executable, "-m", "cortex_embed", "rpc", "--model", "hash"],
        input=request, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"hash"' in done.stdout
    assert "vectors mean nothing" in done.stderr


def test_asyncio_needs_no_load() -> None:
    assert asyncio.run(embed("a")).vectors.shape == (1, 384)


async def test_what_is_submitted_gets_the_same_vectors() -> None:
    provider, told = HashingProvider(), list[Pooled | Exception]()
    texts = ("one", "two and more", "é")
    given: Any = {"input_type": "query", "truncate": "end", "told": told.append}
    assert provider.submit(texts, **given) is not None
    left = provider.submit(("nobody waits",), **given)
    assert left is not None
    left.cancel()
    assert not told
    await asyncio.sleep(0.01)
    (found,) = told
    assert isinstance(found, Pooled)
    expected = await embed(*texts, input_type="query")
    np.testing.assert_array_equal(found.vectors, expected.vectors)
    assert (found.tokens, sum(found.lengths)) == (expected.tokens, expected.tokens)
    assert provider.submit(("a" * 600,), **given) is None
