"""From what a provider gives to what a caller gets: checked, shaped, named and counted.

It exists so that a request that waits in a task (`EmbeddingService.embed`) and one that does not
(`submit`) have the same end. It must never know a wire format.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from cortex_embed.domain import EmbedResult
from cortex_embed.errors import EngineError, InvalidRequestError, TextError, TokensError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from cortex_embed.domain import EmbedRequest, Pooled, Provider, Submitted, Truncate
    from cortex_embed.metrics import Metrics
    from cortex_embed.service import ServedModel


def must_be_finite(vectors: Any) -> None:
    """Raises EngineError for numbers that are none."""
    import math

    import numpy as np

    # One pass: NaN and infinity survive a sum, and float32 values cannot overflow float64.
    if not math.isfinite(np.add.reduce(vectors, axis=None, dtype=np.float64)):
        raise EngineError("The model gave a vector that is not finite; nothing was returned.")


class Answering:
    """A request that is being computed with `model`, which is in `use` meanwhile."""

    __slots__ = ("_metrics", "_model", "_request", "_started", "_submitted", "_told", "_use")

    def __init__(
        self,
        request: EmbedRequest,
        model: ServedModel,
        use: AbstractContextManager[Provider],
        metrics: Metrics,
    ) -> None:
        self._request = request
        self._model = model
        self._use = use
        self._metrics = metrics
        self._started = time.perf_counter()
        self._submitted: Submitted | None = None
        """Which holds this, that it is told: each lets go in the end, or they and the texts would
        stay until the collector of circles comes by."""

    def result(self, pooled: Pooled, requests: int = 1) -> EmbedResult:
        """The answer, counted as that to so many requests. Raises EngineError."""
        from cortex_embed.vectors import shape

        request, model = self._request, self._model
        must_be_finite(pooled.vectors)
        vectors = shape(
            pooled.vectors,
            dimensions=request.dimensions,
            normalize=request.normalize,
            layer_norm=model.spec.layer_norm,
        )
        result = EmbedResult(
            vectors,
            pooled.tokens,
            model.spec,
            pooled.truncations,
            pooled.timings,
            fingerprint=model.fingerprint,
            read_as=pooled.read_as,
            lengths=pooled.lengths,
        )
        seconds = time.perf_counter() - self._started
        self._metrics.embedded(request, result, seconds, requests)
        return result

    def submit(
        self, truncate: Truncate, told: Callable[[EmbedResult | Exception], object]
    ) -> Submitted | None:
        """Have the texts, which are strings, computed, and `told` of it; see `Provider.submit`."""
        request: Any = self._request
        self._told = told
        provider, submitted = self._use.__enter__(), None
        try:
            submitted = provider.submit(
                request.texts, input_type=request.input_type, truncate=truncate, told=self._hear
            )
        finally:
            if submitted is None:
                self._use.__exit__(None, None, None)
        if submitted is None:
            return None
        self._submitted = submitted
        return self

    def cancel(self) -> None:
        """See `domain.Submitted.cancel`."""
        submitted, self._submitted = self._submitted, None
        if submitted is None:
            return
        self._metrics.asked(self._request, len(self._request.texts))
        submitted.cancel()
        self._use.__exit__(None, None, None)

    def _hear(self, outcome: Pooled | Exception) -> None:
        self._submitted = None
        self._use.__exit__(None, None, None)
        answer: EmbedResult | Exception
        try:
            if isinstance(outcome, Exception):
                answer = outcome
            else:
                self._metrics.asked(self._request, len(outcome.lengths))
                answer = self.result(outcome, len(outcome.lengths))
        except Exception as why:  # whoever waits must hear of it
            answer = why
        self._told(answer)


class NamedBy:
    """A provider knows a text by its index; the caller of `request` has a name for it.

    Not a generator: that takes three times as long, at every request.
    """

    __slots__ = ("_request",)

    def __init__(self, request: EmbedRequest) -> None:
        self._request = request

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, why: BaseException | None, trace: object) -> None:
        """Raises InvalidRequestError."""
        if why is None:
            return
        request = self._request
        if isinstance(why, TextError):
            where = request.path(why.index)
            message = f"{where}: {why.message}"
            raise InvalidRequestError(message, param=where, code=why.code) from None
        if isinstance(why, TokensError):
            message = f"{request.param} {why.message}"
            raise InvalidRequestError(message, param=request.param, code=why.code) from None
