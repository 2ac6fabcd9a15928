from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from cortex_embed.domain import (
    EmbedRequest,
    InputType,
    ModelSpec,
    Pooled,
    Priority,
    Token,
    TokenStates,
    Truncate,
)
from cortex_embed.errors import (
    TOO_LONG,
    EmbedError,
    EngineError,
    InvalidRequestError,
    ModelNotFoundError,
    NotReadyError,
    TextError,
    TokensError,
)
from cortex_embed.providers.pool import ModelPool
from cortex_embed.service import EmbeddingService, Limits, ServedModel

if TYPE_CHECKING:
    from cortex_embed.domain import Text

SPEC = ModelSpec(
    id="tiny",
    repo="Maker/Tiny-Model",
    revision="0",
    family="bert",
    pooling="cls",
    normalize=True,
    dimensions=4,
    max_tokens=8,
    query_prefix="q: ",
    document_prefix="",
    licence="mit",
    aliases=("little",),
)


class FakeProvider:
    """Vector of text i is [len, 1, 2, 3]; keeps what it was asked."""

    spec = SPEC

    def __init__(self) -> None:
        self.asked: dict[str, object] = {}
        self.fault: Exception | None = None
        self.value = 1.0

    def begin(self) -> None:
        self.begun = True

    async def load(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        priority: Priority,
    ) -> Pooled:
        self.asked = {"input_type": input_type, "truncate": truncate, "priority": priority}
        if self.fault:
            raise self.fault
        rows = [[len(t), self.value, 2, 3] for t in texts]
        return Pooled(np.array(rows, dtype=np.float32), tokens=7 * len(texts))

    def submit(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        told: Callable[[Pooled | Exception], object],
    ) -> FakeProvider | None:
        """Is its own `Submitted`; the test calls `told`."""
        self.asked = {"texts": texts, "input_type": input_type, "truncate": truncate}
        if self.fault:
            raise self.fault
        self.told = told
        return None if "later" in texts else self

    def cancel(self) -> None:
        self.asked = {}

    async def tokenize(
        self, texts: Sequence[str], *, input_type: InputType | None, special: bool
    ) -> list[list[Token]]:
        self.asked = {"input_type": input_type, "special": special}
        return [[Token(ord(c), c, False, i, i + 1) for i, c in enumerate(text)] for text in texts]

    async def detokenize(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        self.asked = {"skip_special": skip_special}
        if self.fault:
            raise self.fault
        return ["".join(map(chr, one)) for one in ids]

    async def token_states(
        self, texts: Sequence[Text], *, input_type: InputType | None, truncate: Truncate
    ) -> TokenStates:
        self.asked = {"input_type": input_type, "truncate": truncate}
        if self.fault:
            raise self.fault
        states = tuple(np.full((len(t), 4), self.value, np.float32) for t in texts)
        return TokenStates(states, tokens=1)


async def ready(**limits: int | str) -> tuple[EmbeddingService, FakeProvider]:
    provider = FakeProvider()
    service = EmbeddingService([provider], limits=Limits(**limits))  # type: ignore[arg-type]
    await service.load()
    return service, provider


async def fails(request: EmbedRequest, kind: type[EmbedError], **limits: int | str) -> EmbedError:
    service, _ = await ready(**limits)
    with pytest.raises(kind) as caught:
        await service.embed(request)
    return caught.value


async def test_the_answer_carries_vectors_tokens_and_model() -> None:
    service, provider = await ready()
    result = await service.embed(EmbedRequest(texts=("a", "bb")))
    assert result.vectors.shape == (2, 4)
    np.testing.assert_allclose(np.linalg.norm(result.vectors, axis=1), 1, atol=1e-6)
    assert (result.tokens, result.model) == (14, SPEC)
    assert provider.asked == {"input_type": None, "truncate": "end", "priority": "interactive"}


async def test_dimensions_shorten_then_normalize() -> None:
    service, _ = await ready()
    result = await service.embed(EmbedRequest(texts=("abc",), dimensions=2))
    np.testing.assert_allclose(result.vectors, [[3 / 10**0.5, 1 / 10**0.5]], rtol=1e-6)


async def test_normalize_false_gives_the_pooled_values() -> None:
    service, _ = await ready()
    result = await service.embed(EmbedRequest(texts=("abc",), normalize=False))
    np.testing.assert_array_equal(result.vectors, [[3, 1, 2, 3]])


@pytest.mark.parametrize(
    "name", [None, "tiny", "TINY", "Maker/Tiny-Model", "little", "tiny:latest"]
)
async def test_names_of_the_model(name: str | None) -> None:
    service, _ = await ready()
    assert service.resolve(name) == SPEC


@pytest.mark.parametrize("name", ["other", "", "tiny2", "Maker/other"])
async def test_an_unknown_name_is_an_error_and_never_the_default(name: str) -> None:
    error = await fails(EmbedRequest(texts=("a",), model=name), ModelNotFoundError)
    assert "Served: tiny" in error.message
    assert (error.status, error.param) == (404, "model")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "texts[1] is empty"),
        ("ab\0c", "texts[1] contains NUL (U+0000) at character 2"),
        ("ab\ud800", "texts[1] contains a lone surrogate (U+D800) at character 2"),
        ("x" * 101, "texts[1] has 101 characters; the limit is 100"),
        ((), "texts[1] is empty"),
    ],
)
async def test_a_bad_text_is_named(text: Text, words: str) -> None:
    error = await fails(EmbedRequest(texts=("ok", text)), InvalidRequestError, max_text_chars=100)
    assert words in error.message
    assert (error.status, error.param) == (400, "texts[1]")


async def test_a_single_text_is_named_without_an_index() -> None:
    error = await fails(EmbedRequest(texts=("",), param="input", single=True), InvalidRequestError)
    assert error.param == "input"


async def test_no_texts_and_too_many() -> None:
    empty = await fails(EmbedRequest(texts=(), param="input"), InvalidRequestError)
    assert "input is empty" in empty.message
    many = await fails(EmbedRequest(texts=("a",) * 4), InvalidRequestError, max_inputs=3)
    assert "has 4 texts; the limit is 3" in many.message


@pytest.mark.parametrize("asked", [0, -1, 5, 10**20])
async def test_dimensions_out_of_range(asked: int) -> None:
    error = await fails(EmbedRequest(texts=("a",), dimensions=asked), InvalidRequestError)
    assert f"dimensions is {asked}; tiny gives 1 to 4" in error.message
    assert error.param == "dimensions"


async def test_a_providers_fault_gets_the_callers_name_of_the_text() -> None:
    service, provider = await ready()
    provider.fault = TextError(1, "the text has 9 tokens.", code=TOO_LONG)
    with pytest.raises(InvalidRequestError, match=r"input\[1\]: the text has 9 tokens") as caught:
        await service.embed(EmbedRequest(texts=("a", "b"), param="input"))
    assert caught.value.param == "input[1]"
    assert caught.value.code == TOO_LONG


async def test_a_vector_that_is_not_finite_is_never_returned() -> None:
    service, provider = await ready()
    provider.value = float("nan")
    with pytest.raises(EngineError, match="not finite"):
        await service.embed(EmbedRequest(texts=("a",)))


async def test_policy_and_request_decide_on_truncation() -> None:
    service, provider = await ready(truncate="none")
    await service.embed(EmbedRequest(texts=("a",)))
    asked = [provider.asked["truncate"]]
    await service.embed(EmbedRequest(texts=("a",), truncate="start"))
    asked.append(provider.asked["truncate"])
    assert asked == ["none", "start"]


async def test_phases() -> None:
    service = EmbeddingService([FakeProvider()])
    request = EmbedRequest(texts=("a",))
    phases: list[str] = [service.phase]
    with pytest.raises(NotReadyError, match="loading"):
        await service.embed(request)
    await service.load()
    phases.append(service.phase)
    service.drain()
    phases.append(service.phase)
    assert phases == ["loading", "ready", "draining"]
    assert len((await service.embed(request)).vectors) == 1  # in flight goes on
    await service.close()
    with pytest.raises(NotReadyError, match="stopping"):
        await service.embed(request)


async def test_a_model_that_is_downloaded_first() -> None:
    provider = FakeProvider()
    arrived = threading.Event()

    def download() -> tuple[ModelPool, list[ServedModel]]:
        assert arrived.wait(10)
        return ModelPool.of([provider]), [ServedModel(provider.spec, 0, fingerprint="cx1:1")]

    service = EmbeddingService([], models=[ServedModel(provider.spec, 0)], download=download)
    request = EmbedRequest(texts=("a",))
    assert service.resolve(None) == provider.spec
    service.begin()
    downloading = asyncio.ensure_future(service.download())
    with pytest.raises(NotReadyError, match="being downloaded") as caught:
        await service.embed(request)
    assert (caught.value.phase, service.phase) == ("downloading", "downloading")
    assert caught.value.retry_after > 1
    assert not service.is_loaded(provider.spec.id)
    await service.prepare(None, 5)  # nothing is waited for but the download
    with pytest.raises(ModelNotFoundError):
        await service.prepare("nope", 5)
    arrived.set()
    await downloading
    assert service.phase == "loading"
    assert service.models()[0].fingerprint == "cx1:1"
    await service.load()
    assert len((await service.embed(request)).vectors) == 1
    await service.close()


async def test_a_stop_before_the_download_has_ended() -> None:
    models = [ServedModel(SPEC, 0)]
    service = EmbeddingService([], models=models, download=lambda: pytest.fail("not begun"))
    service.drain()
    with pytest.raises(NotReadyError, match="stopping") as caught:
        await service.prepare(None, 5)
    assert caught.value.phase == "draining"
    await service.close()


async def test_tokens_there_and_back() -> None:
    service, provider = await ready()
    tokens = await service.tokenize(EmbedRequest(("ab",), input_type="query"), special=True)
    assert [token.text for token in tokens[0]] == ["a", "b"]
    assert provider.asked == {"input_type": "query", "special": True}
    assert await service.detokenize(EmbedRequest(((104, 105),)), skip_special=False) == ["hi"]
    assert provider.asked == {"skip_special": False}


async def test_token_states_follow_the_policy_on_long_texts() -> None:
    service, provider = await ready(truncate="none")
    found = await service.token_states(EmbedRequest(("abc",)))
    assert found.states[0].shape == (3, 4)
    assert provider.asked == {"input_type": None, "truncate": "none"}


async def test_a_fault_of_tokens_names_the_text_in_the_callers_words() -> None:
    service, provider = await ready()
    provider.fault = TextError(1, "no such id")
    request = EmbedRequest(((1,), (2,)), param="ids")
    for call in (service.detokenize(request, skip_special=True), service.token_states(request)):
        with pytest.raises(InvalidRequestError) as caught:
            await call
        assert caught.value.param == "ids[1]"


async def test_a_model_that_is_not_in_memory_is_loading() -> None:
    other = FakeProvider()
    other.spec = replace(SPEC, id="other", repo="Maker/Other", aliases=())
    service = EmbeddingService([FakeProvider(), other])
    await service.prepare("other", 5)  # nothing is loaded before the default model
    await service.load()
    assert [service.is_loaded(name) for name in ("tiny", "other")] == [True, False]
    with pytest.raises(NotReadyError, match="The model other is loading"):
        await service.embed(EmbedRequest(texts=("a",), model="Maker/Other"))
    await service.prepare("other", 5)
    result = await service.embed(EmbedRequest(texts=("a",), model="other"))
    assert (result.model.id, service.is_loaded("other")) == ("other", True)
    with pytest.raises(ModelNotFoundError, match="Served: tiny, other"):
        await service.prepare("third", 5)
    assert await service.close()


async def test_states_that_are_not_finite_are_never_returned() -> None:
    service, provider = await ready()
    provider.value = float("nan")
    with pytest.raises(EngineError, match="not finite"):
        await service.token_states(EmbedRequest(("ab",)))


async def test_lists_of_tokens_are_bounded_over_all_texts() -> None:
    service, _ = await ready()
    request = EmbedRequest(("a" * 200_000, "b" * 50_000), param="inputs")
    assert len(await service.tokenize(request, special=True)) == 2
    request = EmbedRequest(("a" * 200_000, "b" * 50_001), param="inputs")
    with pytest.raises(InvalidRequestError, match="inputs has 250001 characters in all; tokens"):
        await service.tokenize(request, special=True)


async def test_too_many_tokens_are_named_as_the_caller_does() -> None:
    service, provider = await ready()
    provider.fault = TokensError(600, 512)
    with pytest.raises(
        InvalidRequestError, match="input has 600 tokens; the limit is 512"
    ) as caught:
        await service.embed(EmbedRequest(texts=("a",), param="input", single=True))
    assert (caught.value.param, caught.value.code) == ("input", "too_many_tokens")


async def test_the_result_has_the_fingerprint_and_is_counted() -> None:
    provider = FakeProvider()
    models = [ServedModel(SPEC, 0, fingerprint="cx1:a")]
    service = EmbeddingService([provider], models=models)
    await service.load()
    result = await service.embed(EmbedRequest(texts=("a", "b"), model="little"))
    assert result.fingerprint == "cx1:a"
    assert service.served("little") is models[0]
    assert (service.metrics.embeds, service.metrics.texts, service.metrics.tokens) == (1, 2, 14)
    provider.fault = EngineError("broken")
    with pytest.raises(EngineError):
        await service.embed(EmbedRequest(texts=("a",)))
    with pytest.raises(InvalidRequestError):
        await service.embed(EmbedRequest(texts=()))
    assert (service.metrics.embeds, service.metrics.texts) == (2, 2)
