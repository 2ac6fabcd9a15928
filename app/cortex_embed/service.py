"""The pipeline on one page: resolve, check, embed, shape.

Whatever dialect asked, whatever provider computes, a request passes here once. This module
must never know a wire format, a path of a file, or how a vector is made.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from cortex_embed.domain import EmbedResult, ModelSpec
from cortex_embed.errors import (
    EngineError,
    InvalidRequestError,
    ModelFileError,
    ModelNotFoundError,
    NotReadyError,
    TextError,
    TokensError,
)
from cortex_embed.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from cortex_embed.config import Settings
    from cortex_embed.domain import (
        EmbedRequest,
        Priority,
        Provider,
        Text,
        Token,
        TokenStates,
        Truncate,
    )
    from cortex_embed.models.artifact import Artifact

    Download = Callable[[], tuple[Provider, "ServedModel"]]

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
    """Embeds with the providers it was given; the first one's model is the default."""

    def __init__(
        self,
        providers: Sequence[Provider],
        *,
        limits: Limits | None = None,
        models: Sequence[ServedModel] = (),
        metrics: Metrics | None = None,
        download: Download | None = None,
    ) -> None:
        """`metrics` is where the providers count, if they do. With `download`, `models` say what
        will be served, and the providers come from it."""
        self.metrics = metrics or Metrics()
        self._providers = {p.spec.id: p for p in providers}
        self._limits = limits or Limits()
        started = int(time.time())
        self._models = tuple(models) or tuple(ServedModel(p.spec, started) for p in providers)
        self._download = download
        self._phase: Phase = "downloading" if download else "loading"
        self._loaded = False
        self._closed = False
        self.began = 0.0
        """When loading began, by `time.perf_counter`."""

    @property
    def phase(self) -> Phase:
        return self._phase

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
        if name is None:
            return self._models[0]
        for model in self._models:
            if model.spec.answers_to(name):
                return model
        served = ", ".join(m.spec.id for m in self._models)
        raise ModelNotFoundError(
            f"The model {name[:200]!r} is not served here. Served: {served}.",
            param="model",
            name=name[:200],
        )

    async def download(self) -> None:
        """Get a model that is not on this disk yet; nothing if it is. Raises DownloadError."""
        if self._download is None:
            return
        import asyncio  # not before a port is announced

        provider, model = await asyncio.to_thread(self._download)
        self._download = None
        self._providers = {model.spec.id: provider}
        self._models = (model,)
        if self._phase == "downloading":
            self._phase = "loading"

    def begin(self) -> None:
        """Start reading the models, in threads: before there is an event loop to wait on."""
        self.began = time.perf_counter()
        for provider in self._providers.values():
            provider.begin()

    async def load(self) -> None:
        """Load every model and verify it. Raises ModelFileError."""
        self.began = self.began or time.perf_counter()
        for provider in self._providers.values():
            await provider.load()
        self._loaded = True
        if self._phase == "loading":
            self._phase = "ready"

    async def embed(self, request: EmbedRequest) -> EmbedResult:
        """Vectors of every text of the request, in order, or one of the errors of `EmbedError`."""
        self._must_be_ready()
        model = self.served(request.model)
        spec = model.spec
        self._check(request, spec)
        self.metrics.asked(request)
        started = time.perf_counter()
        with named_by(request):
            pooled = await self._providers[spec.id].embed(
                request.texts,
                input_type=request.input_type,
                truncate=request.truncate or self._limits.truncate,
                priority=request.priority or _priority(request.texts),
            )
        vectors = _shaped(pooled.vectors, request, spec)
        result = EmbedResult(
            vectors,
            pooled.tokens,
            spec,
            pooled.truncations,
            pooled.timings,
            fingerprint=model.fingerprint,
            read_as=pooled.read_as,
        )
        self.metrics.embedded(request, result, time.perf_counter() - started)
        return result

    async def token_states(self, request: EmbedRequest) -> TokenStates:
        """The state of every token of every text; what `embed` pools. Errors as for `embed`."""
        self._must_be_ready()
        spec = self.resolve(request.model)
        self._check(request, spec)
        with named_by(request):
            found = await self._providers[spec.id].token_states(
                request.texts,
                input_type=request.input_type,
                truncate=request.truncate or self._limits.truncate,
            )
        for states in found.states:
            _must_be_finite(states)
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
        return await self._providers[spec.id].tokenize(
            texts, input_type=request.input_type, special=special
        )

    async def detokenize(self, request: EmbedRequest, *, skip_special: bool) -> list[str]:
        """The text of every list of token ids. Errors as for `embed`."""
        self._must_be_ready()
        spec = self.resolve(request.model)
        self._check(request, spec)
        ids = [text for text in request.texts if not isinstance(text, str)]
        with named_by(request):
            return await self._providers[spec.id].detokenize(ids, skip_special=skip_special)

    def _must_be_ready(self) -> None:
        if self._phase == "downloading":
            raise NotReadyError(
                "The model is being downloaded; try again in a while.",
                phase="downloading",
                retry_after=_DOWNLOAD_RETRY_AFTER,
            )
        if self._phase == "loading":
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

    async def close(self) -> None:
        """Refuse new requests; finish and release."""
        self._phase = "draining"
        self._closed = True
        for provider in self._providers.values():
            await provider.close()

    def drain(self) -> None:
        """Say that the server is stopping: readiness goes, requests in flight go on."""
        self._phase = "draining"


@contextmanager
def named_by(request: EmbedRequest) -> Iterator[None]:
    """A provider knows a text by its index; the caller has a name for it."""
    try:
        yield
    except TextError as why:
        where = request.path(why.index)
        raise InvalidRequestError(f"{where}: {why.message}", param=where, code=why.code) from None
    except TokensError as why:
        message = f"{request.param} {why.message}"
        raise InvalidRequestError(message, param=request.param, code=why.code) from None


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


def _must_be_finite(vectors: Any) -> None:
    import numpy as np

    # One pass: NaN and infinity survive a sum, and float32 values cannot overflow float64.
    if not np.isfinite(vectors.sum(dtype=np.float64)):
        raise EngineError("The model gave a vector that is not finite; nothing was returned.")


def _shaped(vectors: Any, request: EmbedRequest, spec: ModelSpec) -> Any:
    from cortex_embed.vectors import shape

    _must_be_finite(vectors)
    return shape(
        vectors,
        dimensions=request.dimensions,
        normalize=request.normalize,
        layer_norm=spec.layer_norm,
    )


class Located(msgspec.Struct, frozen=True):
    """The model that `settings` name, and what makes its provider. Nothing is hashed yet.

    `artifact` is None for a model that has no files.
    """

    model: ServedModel
    provider: Callable[[Metrics], Provider]
    artifact: Artifact | None = None


def locate_model(settings: Settings) -> Located:
    """Find the model and read its manifest: cheap, and done before a port is bound.

    Raises ModelFileError or ModelNotFoundError.
    """
    from cortex_embed.providers import hashing

    if settings.model is not None and hashing.SPEC.answers_to(settings.model):
        return _hashing(settings)
    from cortex_embed.models.store import locate

    return located(settings, locate(settings.model, settings.model_dir, settings.catalogue))


def located(settings: Settings, artifact: Artifact) -> Located:
    """`artifact` in the precision that `settings` mean. Raises ModelFileError."""
    from cortex_embed.models.fingerprint import fingerprint
    from cortex_embed.providers.precision import choose

    choice = choose(settings.precision, artifact)
    identity = fingerprint(artifact, choice.precision)
    model = ServedModel(
        artifact.spec,
        int(time.time()),
        fingerprint=identity,
        facts=artifact.facts(choice.precision) | {"fingerprint": identity},
        origin=f"{choice}; from {artifact.directory}",
    )
    provider = partial(_local, settings, artifact, choice.precision)
    return Located(model, provider, artifact)


def _hashing(settings: Settings) -> Located:
    """The provider that computes hashes; only for who asked for it by name."""
    from cortex_embed.providers import hashing

    if settings.precision not in {None, "auto", hashing.PRECISION}:
        raise ModelFileError(
            f"--precision {settings.precision}: the model {hashing.SPEC.id} has "
            f"{hashing.PRECISION}. Leave --precision out."
        )
    identity = hashing.fingerprint()
    model = ServedModel(
        hashing.SPEC,
        int(time.time()),
        fingerprint=identity,
        facts=hashing.facts() | {"fingerprint": identity},
        origin=hashing.WARNING,
    )
    return Located(model, lambda _: hashing.HashingProvider())


def _local(settings: Settings, artifact: Artifact, precision: str, metrics: Metrics) -> Provider:
    from cortex_embed.providers.cores import available_cores
    from cortex_embed.providers.local import LocalProvider

    return LocalProvider(
        artifact,
        precision=precision,
        threads=settings.threads or available_cores(),
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        max_memory=settings.max_memory,
        max_request_tokens=settings.max_request_tokens,
        metrics=metrics,
    )


def build_service(settings: Settings, located: Located | None = None) -> EmbeddingService:
    """The service that `settings` describe; `load` reads and verifies the model.

    Raises ModelFileError or ModelNotFoundError where the model has to be located first.
    """
    found = located or locate_model(settings)
    metrics = Metrics()
    return EmbeddingService(
        [found.provider(metrics)], limits=_limits(settings), models=[found.model], metrics=metrics
    )


def build_downloading(
    settings: Settings, spec: ModelSpec, fetch: Callable[[], Located]
) -> EmbeddingService:
    """As `build_service`, for a model that the service's `download` gets by `fetch` first."""
    metrics = Metrics()

    def download() -> tuple[Provider, ServedModel]:
        found = fetch()
        return found.provider(metrics), found.model

    return EmbeddingService(
        [],
        limits=_limits(settings),
        models=[ServedModel(spec, int(time.time()))],
        metrics=metrics,
        download=download,
    )


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_inputs=settings.max_inputs,
        max_text_chars=settings.max_text_chars,
        truncate="none" if settings.on_overlong == "error" else "end",
    )
