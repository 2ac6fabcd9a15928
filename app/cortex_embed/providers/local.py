"""The local provider: tokenizer, micro-batcher and engine of one model in this process.

Two things leave the event loop here, each into its own bounded thread pool: tokenizing and
`Engine.run`. It must never normalize or shorten: that happens after the cache.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from cortex_embed.config import prepare_runtime_environment
from cortex_embed.domain import SHORT_CHARS, TokenStates
from cortex_embed.errors import (
    InvalidRequestError,
    NotReadyError,
    TextError,
    TokensError,
    UnsupportedError,
)
from cortex_embed.providers import engines, memory, parts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from cortex_embed.domain import (
        InputType,
        ModelSpec,
        Pooled,
        Priority,
        Submitted,
        Text,
        Token,
        Truncate,
    )
    from cortex_embed.metrics import Metrics
    from cortex_embed.models.store import Artifact
    from cortex_embed.providers.batcher import MicroBatcher
    from cortex_embed.providers.engines import AnyEngine, Chosen, EngineChoice
    from cortex_embed.providers.lanes import Batched
    from cortex_embed.providers.states import TokenStateRunner
    from cortex_embed.providers.tokenizer import Encoded, Tokenizer

T = TypeVar("T")

_SETTLED = 0.3
"""Seconds from ready to the making of the second session: the first requests go first."""


class LocalProvider:
    """Serves one artifact. Create it anywhere; `load` inside the event loop."""

    def __init__(
        self,
        artifact: Artifact,
        *,
        threads: int,
        max_batch_tokens: int,
        max_queue_tokens: int,
        precision: str = "fp32",
        engine: EngineChoice = engines.ONNX_RUNTIME,
        fell_back: Callable[[EngineChoice], object] | None = None,
        max_memory: int = 0,
        run_memory: int = 0,
        max_request_tokens: int = 0,
        metrics: Metrics | None = None,
    ) -> None:
        """`max_memory` bounds the process, `run_memory` this model's runs alone; in bytes.

        These and `max_request_tokens` are no bound when 0; `metrics` is told of every micro-batch,
        `fell_back` of the engine that computes in the stead of `engine` (see `engines.make`).
        """
        self._artifact = artifact
        self._max_request_tokens = max_request_tokens
        self._metrics = metrics
        self._precision = precision
        self._chosen = engines.Chosen(artifact, precision, engine)
        self._fell_back = fell_back
        self._engine: AnyEngine | None = None
        self._max_memory = max_memory
        self._run_memory = run_memory
        self._threads = threads
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._tokenizer: Tokenizer | None = None
        self._batcher: MicroBatcher | None = None
        self._states: TokenStateRunner | None = None
        self._reading: tuple[Future[None], Future[Tokenizer], Future[AnyEngine]] | None = None
        self._later: asyncio.TimerHandle | None = None
        self._widening: asyncio.Future[None] | None = None
        self._tokenizing = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")

    @property
    def spec(self) -> ModelSpec:
        return self._artifact.spec

    def begin(self) -> None:
        """Start to hash the files and to read tokenizer and graph, each in a thread."""
        if self._reading is not None:
            return
        prepare_runtime_environment()
        loading = ThreadPoolExecutor(2, thread_name_prefix="loading")
        self._reading = (
            loading.submit(self._artifact.verify, self._precision),
            self._tokenizing.submit(self._load_tokenizer),
            loading.submit(self._load_engine),
        )
        loading.shutdown(wait=False)  # its threads end with their work

    async def load(self) -> None:
        """Wait for what `begin` started, warm up with one text. Raises ModelFileError.

        Nothing is computed before every file is known to be the manifest's.
        """
        from cortex_embed.providers.batcher import MicroBatcher

        self.begin()
        assert self._reading is not None  # noqa: S101 - begin() has set it; this is for mypy
        verifying, reading, building = self._reading
        futures: list[Future[Any]] = [verifying, reading, building]
        await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
        # A damaged file makes the others fail as well, in the words of whoever stumbled over it.
        verifying.result()
        tokenizer, engine = reading.result(), building.result()
        self._reading = None
        self._engine = engine
        warm_up = tokenizer.encode(["warm-up"], prefix="", truncate="end")
        await asyncio.get_running_loop().run_in_executor(None, engine.run, [warm_up[0].ids])
        self._tokenizer = tokenizer
        if engine.queue is None and self._max_memory:
            engine.widen()  # before what is taken is measured
        elif engine.queue is None:
            loop = asyncio.get_running_loop()
            self._later = loop.call_later(_SETTLED, self._widen, loop, engine)
        size = self._fit(queued=engine.queue is not None)
        self._batcher = MicroBatcher(
            engine.run,
            run_alone=engine.run_alone,
            padded=engine.PADS,
            enough_tokens=engine.enough_tokens,
            dimensions=self.spec.dimensions,
            # A foreign graph has one session, with all threads in it.
            workers=size.workers if self._artifact.is_own else 1,
            max_batch_tokens=1 if self._artifact.alone else size.max_batch_tokens,
            max_queue_tokens=self._max_queue_tokens,
            when_idle=partial(_rest, engine),
            metrics=self._metrics,
            queue=engine.queue,
        )
        self._states = self._state_runner(size.max_batch_tokens)

    def _state_runner(self, max_batch_tokens: int) -> TokenStateRunner | None:
        from cortex_embed.providers.states import TokenStateRunner

        if self._artifact.token_graph_for(self._precision) is None:
            return None
        return TokenStateRunner(
            self._token_graph, dimensions=self.spec.dimensions, max_batch_tokens=max_batch_tokens
        )

    def _token_graph(self) -> Path:
        """The graph of token states that this runtime reads, which is loaded to find out."""
        from cortex_embed.providers.engine import newest_opset

        graph = self._artifact.token_graph_for(self._precision, newest_opset())
        if graph is None:
            raise self._without_states()
        return graph

    def _without_states(self) -> UnsupportedError:
        return UnsupportedError(
            f"This copy of {self.spec.id} has no graph of token states: it gives one vector a "
            "text, not one a token. Export the model again, or ask for embeddings."
        )

    def _widen(self, loop: asyncio.AbstractEventLoop, engine: AnyEngine) -> None:
        self._widening = loop.run_in_executor(None, engine.widen)

    def _fit(self, *, queued: bool) -> memory.Fit:
        """Threads and token budget within the bound, now that the model is loaded."""
        run, longest = memory.runs(self._chosen), self.spec.max_tokens
        asked: Any = {"workers": self._threads, "max_batch_tokens": self._max_batch_tokens}
        beside = 2 if queued else 1
        if self._run_memory:
            return memory.within(self._run_memory, run, longest, beside=beside, **asked)
        taken = memory.resident()
        if not self._max_memory or taken is None:
            return memory.Fit(**asked)
        return memory.fit(self._max_memory, taken, run, longest, beside=beside, **asked)

    def _load_tokenizer(self) -> Tokenizer:
        from cortex_embed.providers.tokenizer import Tokenizer

        return Tokenizer(self._artifact.tokenizer, max_tokens=self.spec.max_tokens)

    def _load_engine(self) -> AnyEngine:
        return engines.make(self._chosen, self._threads, self._take_note)

    def _take_note(self, chosen: Chosen) -> None:
        """Of another engine than the one that was chosen."""
        self._chosen = chosen
        if self._fell_back is not None:
            self._fell_back(chosen.engine)

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        priority: Priority,
    ) -> Pooled:
        """See `domain.Provider.embed`."""
        if self._tokenizer is None or self._batcher is None:
            raise NotReadyError("The model is loading; try again shortly.", phase="loading")
        prefix = self.spec.prefix(input_type)
        if parts.size(texts) > parts.SLICE_CHARS and not self._max_request_tokens:
            return await self._embed_in_parts(self._batcher, texts, prefix, truncate)
        started = time.perf_counter()
        encoded = await self._encode(texts, prefix, truncate)
        seconds = time.perf_counter() - started
        tokens = self._counted(encoded)
        batched = await self._batcher.embed([e.ids for e in encoded])
        return parts.pooled(encoded, tokens, batched, seconds)

    def submit(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        told: Callable[[Pooled | Exception], object],
    ) -> Submitted | None:
        """See `domain.Provider.submit`."""
        if self._tokenizer is None or self._batcher is None:
            return None
        if max(map(len, texts)) > SHORT_CHARS:
            return None
        started = time.perf_counter()
        ids = self._tokenizer.short(texts, prefix=self.spec.prefix(input_type))
        if ids is None or 0 < self._max_request_tokens < max(map(len, ids)):
            return None
        return self._batcher.submit_short(ids, time.perf_counter() - started, told)

    async def _embed_in_parts(
        self, batcher: MicroBatcher, texts: Sequence[Text], prefix: str, truncate: Truncate
    ) -> Pooled:
        """The same of many texts, which are computed while others are still tokenized."""
        encoded: list[Encoded] = []
        runs: list[asyncio.Task[Batched]] = []
        seconds, size = 0.0, parts.size(texts)
        try:
            for part in parts.slices(texts):
                started = time.perf_counter()
                found = await self._encode_slice(part, prefix, truncate, first=len(encoded))
                seconds += time.perf_counter() - started
                encoded += found
                whole = 0 if runs else self._counted(found) * size // parts.size(part)
                run = batcher.embed([e.ids for e in found], priority="bulk", whole=whole)
                runs.append(asyncio.get_running_loop().create_task(run))
                await asyncio.sleep(0)  # it is queued, or refused
                for one in runs:
                    if one.done():
                        _ = one.result()  # no need to tokenize what will not be computed
            batched = await asyncio.gather(*runs)
        except BaseException:
            for one in runs:
                one.cancel()
            if runs:
                await asyncio.wait(runs)
            raise
        return parts.pooled(encoded, self._counted(encoded), parts.joined(batched), seconds)

    async def _encode(
        self, texts: Sequence[Text], prefix: str, truncate: Truncate
    ) -> list[Encoded]:
        assert self._tokenizer is not None  # noqa: S101 - embed() has checked; this is for mypy
        # Ids may need another vocabulary, which takes its time to load.
        if sum(map(len, texts)) <= SHORT_CHARS and all(isinstance(t, str) for t in texts):
            return self._tokenizer.encode(texts, prefix=prefix, truncate=truncate)
        encoded: list[Encoded] = []
        for part in parts.slices(texts):
            encoded += await self._encode_slice(part, prefix, truncate, first=len(encoded))
        return encoded

    async def _encode_slice(
        self, part: Sequence[Text], prefix: str, truncate: Truncate, *, first: int
    ) -> list[Encoded]:
        """`part` in its thread; `first` is the place of its first text in the request."""
        loop, tokenizer = asyncio.get_running_loop(), self._loaded_tokenizer()
        try:
            return await loop.run_in_executor(
                self._tokenizing, _encode, tokenizer, part, prefix, truncate
            )
        except TextError as why:
            raise TextError(first + why.index, why.message, code=why.code) from None

    async def tokenize(
        self, texts: Sequence[str], *, input_type: InputType | None, special: bool
    ) -> list[list[Token]]:
        """See `domain.Provider.tokenize`."""
        tokenizer = self._loaded_tokenizer()
        prefix = self.spec.prefix(input_type)
        tokens: list[list[Token]] = []
        for part in parts.slices(texts):
            tokens += await self._in_tokenizing_thread(
                partial(tokenizer.tokens, part, prefix=prefix, special=special)
            )
        return tokens

    async def detokenize(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        """See `domain.Provider.detokenize`."""
        tokenizer = self._loaded_tokenizer()
        return await self._in_tokenizing_thread(
            partial(tokenizer.texts, ids, skip_special=skip_special)
        )

    async def token_states(
        self, texts: Sequence[Text], *, input_type: InputType | None, truncate: Truncate
    ) -> TokenStates:
        """See `domain.Provider.token_states`."""
        self._loaded_tokenizer()
        if self._states is None:
            raise self._without_states()
        encoded = await self._encode(texts, self.spec.prefix(input_type), truncate)
        tokens = self._counted(encoded)
        self._check_states(tokens)
        states = await self._states.run([e.ids for e in encoded])
        return TokenStates(states, tokens, parts.truncations(encoded))

    def _counted(self, encoded: Sequence[Encoded]) -> int:
        """Tokens of a whole request. Raises TokensError for more than one may have."""
        tokens = sum(len(e.ids) for e in encoded)
        if 0 < self._max_request_tokens < tokens:
            raise TokensError(tokens, self._max_request_tokens)
        return tokens

    def _check_states(self, tokens: int) -> None:
        """Raises InvalidRequestError for more states than one reply may hold."""
        from cortex_embed.providers.states import MAX_TOKENS

        limit, why = MAX_TOKENS, "the limit"
        taken = memory.resident() if self._max_memory else None
        if taken is not None:
            room = (
                self._max_memory
                - taken
                - memory.runs(self._chosen)(self._max_batch_tokens, self.spec.max_tokens)
            )
            room //= memory.state_bytes(self.spec.dimensions)
            if room < limit:
                limit, why = max(room, 0), "what --max-memory leaves room for now"
        if tokens > limit:
            raise InvalidRequestError(
                f"The texts have {tokens} tokens in all, and every one's state is asked for; "
                f"{why} is {limit} a request. Send fewer texts at a time.",
                code="too_many_tokens",
            )

    def _loaded_tokenizer(self) -> Tokenizer:
        if self._tokenizer is None:
            raise NotReadyError("The model is loading; try again shortly.", phase="loading")
        return self._tokenizer

    async def _in_tokenizing_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._tokenizing, call)

    async def close(self) -> None:
        """Finish what is queued, stop the threads, release the session.

        Raises ModelFileError where the session for texts alone could not be made.
        """
        if self._later is not None:
            self._later.cancel()
        if self._batcher is not None:
            await self._batcher.close()
        if self._states is not None:
            await self._states.close()
        self._batcher = None
        self._states = None
        self._tokenizer = None
        # Not on the event loop: a thread may still tokenize for somebody who has gone.
        await asyncio.get_running_loop().run_in_executor(
            None, partial(self._tokenizing.shutdown, wait=True, cancel_futures=True)
        )
        engine, self._engine = self._engine, None
        try:
            if self._widening is not None:  # late: it may raise, and all else is to be released
                await self._widening
        finally:
            if engine is not None:
                await asyncio.get_running_loop().run_in_executor(None, engine.close)


def _rest(engine: AnyEngine) -> None:
    engine.trim()
    memory.give_back()


def _encode(
    tokenizer: Tokenizer, texts: Sequence[Text], prefix: str, truncate: Truncate
) -> list[Encoded]:
    return tokenizer.encode(texts, prefix=prefix, truncate=truncate)
