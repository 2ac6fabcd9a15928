"""The pipeline on one page: resolve, check, embed, shape.

Whatever dialect asked, whatever provider computes, a request passes here once. This module
must never know a wire format, a path of a file, or how a vector is made.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cortex_embed.answers import Answering, NamedBy, must_be_finite
from cortex_embed.errors import InvalidRequestError, ModelNotFoundError, NotReadyError
from cortex_embed.metrics import Metrics
from cortex_embed.providers.pool import ModelPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.domain import (
        EmbedRequest,
        EmbedResult,
        ModelSpec,
        Priority,
        Provider,
        Submitted,
        Text,
        Token,
        TokenStates,
        Truncate,
    )

    Download = Callable[[], tuple[ModelPool, Sequence["ServedModel"]]]

Phase = Literal["downloading", "loading", "ready", "draining"]
_INTERACTIVE_TEXTS = 2
_TOKEN_LIST_CHARS = 250_000
"""Characters whose tokens one reply lists: in Chinese each is a token, of half a kilobyte until it
is sent (measured), and the lists keep the interpreter busy for a second."""
_DOWNLOAD_RETRY_AFTER = 5


class Limits(msgspec.Struct, frozen=True):
    """What one request may hold. `truncate` applies where the request does not say."""

    max_inputs: int = 16_384
    max_text_chars: int = 1_000_000
    truncate: Truncate = "end"


class ServedModel(msgspec.Struct, frozen=True):
    """A model served here. `created` is in Unix seconds; `facts` is JSON for clients.

    `origin` says where it was loaded from: for the person who started us, never for clients.
    """

    spec: ModelSpec
    created: int
    facts: dict[str, Any] = {}
    origin: str = ""
    fingerprint: str = ""
    """Identity of the vector space: see `models/fingerprint.py`."""


class EmbeddingService:
    """Embeds with the models of a pool; the first is the default.

    Ready means that the default model has been loaded. The others are when they are asked for,
    and so is the default one if its memory was needed meanwhile.
    """

    def __init__(
        self,
        providers: ModelPool | Sequence[Provider],
        *,
        limits: Limits | None = None,
        models: Sequence[ServedModel] = (),
        metrics: Metrics | None = None,
        download: Download | None = None,
    ) -> None:
        """`metrics` is where the providers count, if they do. With `download`, `models` say what
        will be served, and the providers come from it."""
        self.metrics = metrics or Metrics()
        if isinstance(providers, ModelPool):
            self._pool = providers
        else:
            self._pool = ModelPool.of(providers)
            started = int(time.time())
            models = models or [ServedModel(p.spec, started) for p in providers]
        self._limits = limits or Limits()
        self._models: tuple[ServedModel, ...] = ()
        self._by_name: dict[str | None, ServedModel] = {}
        self._serve(models)
        self._download = download
        self.phase: Phase = "downloading" if download else "loading"
        self._loaded = False
        self._closed = False
        self.began = 0.0
        """When loading began, by `time.perf_counter`."""

    def _serve(self, models: Sequence[ServedModel]) -> None:
        self._models = tuple(models)
        # As they are spelled most often: looking through all takes longer than all the checks.
        self._by_name = {m.spec.id: m for m in reversed(self._models)}
        if self._models:
            self._by_name[None] = self._models[0]

    def models(self) -> tuple[ServedModel, ...]:
        """Every model served here, the default first."""
        return self._models

    def resolve(self, name: str | None) -> ModelSpec:
        """The model called `name` (id, repository or alias); the default for None.

        Raises ModelNotFoundError: another model's vectors would be of another space.
        """
        return self.served(name).spec

    def served(self, name: str | None) -> ServedModel:
        """As `resolve`, with what is known of the model beyond its spec."""
        if (found := self._by_name.get(name)) is not None:
            return found
        assert name is not None  # noqa: S101 - there is a default model; this is for mypy
        for model in self._models:
            if model.spec.answers_to(name):
                return model
        served = ", ".join(m.spec.id for m in self._models)
        raise ModelNotFoundError(
            f"The model {name[:200]!r} is not served here. Served: {served}. To serve another "
            "model too, start with --model NAME for each (`cortex-embed models list` has names).",
            param="model",
            name=name[:200],
        )

    async def download(self) -> None:
        """Get models that are not on this disk yet; nothing if all are. Raises DownloadError."""
        if self._download is None:
            return
        import asyncio  # not before a port is announced

        pool, models = await asyncio.to_thread(self._download)
        self._download = None
        self._pool = pool
        self._serve(models)
        if self.phase == "downloading":
            self.phase = "loading"
        else:
            pool.drain()

    def is_loaded(self, model_id: str) -> bool:
        """Whether the served model with this id is in memory."""
        return self._pool.is_loaded(model_id)

    def is_at_hand(self, name: str | None) -> bool:
        """Whether `embed` with the model called `name` would compute at once.

        Raises ModelNotFoundError.
        """
        return self.phase == "ready" and self._pool.is_loaded(self.served(name).spec.id)

    def begin(self) -> None:
        """Start reading the default model, in threads: before there is an event loop to wait on."""
        self.began = time.perf_counter()
        self._pool.begin()

    async def load(self) -> None:
        """Load the default model and verify it. Raises ModelFileError."""
        self.began = self.began or time.perf_counter()
        await self._pool.load()
        self._loaded = True
        if self.phase == "loading":
            self.phase = "ready"

    async def prepare(self, name: str | None, seconds: float) -> None:
        """Have the model called `name` loaded, waiting so long at most; nothing while the default
        one is downloaded or loaded. Raises ModelNotFoundError, ModelLoadError, NotReadyError."""
        model = self.resolve(name)
        if self.phase not in ("downloading", "loading"):
            self._must_be_ready()
            await self._pool.prepare(model.id, seconds)

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Vectors of every text of the request, in order, or one of the errors of `EmbedError`."""
        self._must_be_ready()
        model = self.served(request.model)
        spec = model.spec
        self._check(request, spec)
        self.metrics.asked(request)
        use = self._pool.use(spec.id)
        answering = Answering(request, model, use, self.metrics)
        with NamedBy(request), use as provider:
            pooled = await provider.embed(
                request.texts,
                input_type=request.input_type,
                truncate=request.truncate or self._limits.truncate,
                priority=request.priority or _priority(request.texts),
            )
        return answering.result(pooled)

    def submit(
        self, request: EmbedRequest, told: Callable[[EmbedResult | Exception], object]
    ) -> Submitted | None:
        """As `embed` of many requests at once, which are alike but for their one short string: as
        texts of `request` they are in the order of the answer. For callers without a task: `told`
        is called on the event loop, once, later, with the answer (it has `lengths`) or why there
        is none, and must not raise.

        None, and nothing done, where there is more to wait for than the engine. Raises what is
        known to be wrong at once; what is wrong with one is wrong with all, and none is counted.
        """
        if self.phase != "ready":
            return None
        model = self.served(request.model)
        if not self._pool.is_loaded(model.spec.id):
            return None
        self._check(request, model.spec)
        answering = Answering(request, model, self._pool.use(model.spec.id), self.metrics)
        return answering.submit(request.truncate or self._limits.truncate, told)

    async def token_states(self, request: EmbedRequest) -> TokenStates:
        """The state of every token of every text; what `embed` pools. Errors as for `embed`."""
        self._must_be_ready()
        spec = self.resolve(request.model)
        self._check(request, spec)
        with NamedBy(request), self._pool.use(spec.id) as provider:
            found = await provider.token_states(
                request.texts,
                input_type=request.input_type,
                truncate=request.truncate or self._limits.truncate,
            )
        for states in found.states:
            must_be_finite(states)
        return found

    async def tokenize(self, request: EmbedRequest, *, special: bool) -> list[list[Token]]:
        """The tokens of every text (strings only), untruncated. Errors as for `embed`."""
        self._must_be_ready()
        spec = self.resolve(request.model)
        self._check(request, spec)
        texts = [text for text in request.texts if isinstance(text, str)]
        chars = sum(map(len, texts))
        if chars > _TOKEN_LIST_CHARS:
            raise InvalidRequestError(
                f"{request.param} has {chars} characters in all; tokens are listed for at most "
                f"{_TOKEN_LIST_CHARS} a request. Send less text at a time.",
                param=request.param,
                code="too_many_characters",
            )
        with self._pool.use(spec.id) as provider:
            return await provider.tokenize(texts, input_type=request.input_type, special=special)

    async def detokenize(self, request: EmbedRequest, *, skip_special: bool) -> list[str]:
        """The text of every list of token ids. Errors as for `embed`."""
        self._must_be_ready()
        spec = self.resolve(request.model)
        self._check(request, spec)
        ids = [text for text in request.texts if not isinstance(text, str)]
        with NamedBy(request), self._pool.use(spec.id) as provider:
            return await provider.detokenize(ids, skip_special=skip_special)

    def _must_be_ready(self) -> None:
        if self.phase == "downloading":
            raise NotReadyError(
                "The model is being downloaded; try again in a while.",
                phase="downloading",
                retry_after=_DOWNLOAD_RETRY_AFTER,
            )
        if self.phase == "loading":
            raise NotReadyError("The model is loading; try again shortly.", phase="loading")
        if self._closed or not self._loaded:
            raise NotReadyError("The server is stopping; try another one.", phase="draining")

    def _check(self, request: EmbedRequest, spec: ModelSpec) -> None:
        """Everything that can be wrong before a text is tokenized."""
        if not request.texts:
            raise InvalidRequestError(
                f"{request.param} is empty; send at least one text.", param=request.param
            )
        if len(request.texts) > self._limits.max_inputs:
            raise InvalidRequestError(
                f"{request.param} has {len(request.texts)} texts; the limit is "
                f"{self._limits.max_inputs} a request (--max-inputs). Send several requests.",
                param=request.param,
                code="too_many_inputs",
            )
        asked = request.dimensions
        if asked is not None and not 1 <= asked <= spec.dimensions:
            raise InvalidRequestError(
                f"{request.dimensions_param} is {asked}; {spec.id} gives 1 to {spec.dimensions}.",
                param=request.dimensions_param,
                code="invalid_dimensions",
            )
        for index, text in enumerate(request.texts):
            why = fault(text, self._limits.max_text_chars)
            if why:
                where = request.path(index)
                raise InvalidRequestError(f"{where} {why}", param=where, code="invalid_text")

    async def close(self) -> bool:
        """Refuse new requests; finish and release. False where threads still load a model: the
        process must not wait for them (`stopping.leave`)."""
        self.phase = "draining"
        self._closed = True
        return await self._pool.close()

    def drain(self) -> None:
        """Say that the server is stopping: readiness goes, requests in flight go on."""
        self.phase = "draining"
        self._pool.drain()


def fault(text: Text, max_chars: int) -> str | None:
    """Why `text` cannot be embedded, as the end of a sentence that names it."""
    if not text:
        return "is empty; leave it out, or send a text."
    if not isinstance(text, str):
        return None
    if len(text) > max_chars:
        return (
            f"has {len(text)} characters; the limit is {max_chars} (--max-text-chars). "
            "Split it: the model reads only its first tokens."
        )
    nul = text.find("\0")
    if nul >= 0:
        return f"contains NUL (U+0000) at character {nul}; remove it."
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as why:
            return (
                f"contains a lone surrogate (U+{ord(text[why.start]):04X}) at character "
                f"{why.start}, which is no character; remove it."
            )
    return None


def _priority(texts: Sequence[Text]) -> Priority:
    return "interactive" if len(texts) <= _INTERACTIVE_TEXTS else "bulk"
