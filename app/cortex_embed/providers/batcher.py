"""The micro-batcher: texts of one request and of concurrent requests share engine runs.

The one place that holds live state between requests. There is no timer: an idle worker
takes what is there at once, and what arrives while all workers are busy is coalesced into
the next micro-batch, so waiting costs nothing when idle and batches grow with load.

Promises: every waiter gets its vectors or its error; a failed run fails only the requests
that had a text in it; a cancelled request leaves the queue; the queue is bounded. It must
never look inside a text or know what a model is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cortex_embed.errors import EmbedError, EngineError, NotReadyError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]

_BUCKET_TOKENS = 16
"""Texts whose lengths round up to the same multiple share a bucket: padding inside one
bucket wastes at most 15 tokens a text."""


@dataclass(slots=True, eq=False)
class _Job:
    """One request's texts on their way through the queue."""

    texts: Sequence[Ids]
    vectors: Vectors
    done: asyncio.Future[None]
    left: int
    queued_at: float
    started_at: float | None = None
    engine_seconds: float = 0.0


@dataclass(slots=True, eq=False)
class _Entry:
    """Text `index` of `job`; `order` is its place in the arrival order of all texts."""

    job: _Job
    index: int
    order: int

    @property
    def ids(self) -> Ids:
        return self.job.texts[self.index]

    @property
    def length(self) -> int:
        return len(self.job.texts[self.index])


@dataclass(frozen=True, slots=True)
class Batched:
    """`vectors` float32 [n, dimensions]; seconds before the first run, and inside runs."""

    vectors: Vectors
    queue_seconds: float
    engine_seconds: float


@dataclass(slots=True)
class _Queue:
    """Waiting texts by length bucket, first in first out inside each."""

    buckets: dict[int, deque[_Entry]] = field(default_factory=dict)
    tokens: int = 0

    def push(self, entry: _Entry) -> None:
        self.tokens += entry.length
        self.buckets.setdefault(_bucket(entry.length), deque()).append(entry)

    def drop(self, job: _Job) -> None:
        """Forget what is left of a job that was cancelled or has failed."""
        for key in list(self.buckets):
            kept = deque(e for e in self.buckets[key] if e.job is not job)
            self.tokens -= sum(e.length for e in self.buckets[key] if e.job is job)
            self._put_back(key, kept)

    def _put_back(self, key: int, entries: deque[_Entry]) -> None:
        if entries:
            self.buckets[key] = entries
        else:
            self.buckets.pop(key, None)

    def take(self, budget: int) -> list[_Entry]:
        """The oldest text, and others of its bucket and the next shorter ones that fit.

        The padded size, longest x count, stays within `budget` unless one text alone exceeds it.
        """
        if not self.buckets:
            return []
        head = min(self.buckets, key=lambda key: self.buckets[key][0].order)
        longest = self.buckets[head][0].length
        taken: list[_Entry] = []
        # Down to three quarters of the head's length: padding then costs less than a
        # second run would.
        for key in range(head, max(0, head * 3 // 4 - 1), -1):
            entries = self.buckets.get(key)
            while entries:
                longest = max(longest, entries[0].length)
                if taken and longest * (len(taken) + 1) > budget:
                    return self._taken(taken)
                taken.append(entries.popleft())
                self._put_back(key, entries)
        return self._taken(taken)

    def _taken(self, entries: list[_Entry]) -> list[_Entry]:
        self.tokens -= sum(e.length for e in entries)
        return entries


def _bucket(length: int) -> int:
    return -(-length // _BUCKET_TOKENS)


class MicroBatcher:
    """N workers, each taking a micro-batch within the token budget whenever it is free."""

    def __init__(
        self,
        run: Callable[[list[Ids]], Vectors],
        *,
        dimensions: int,
        workers: int,
        max_batch_tokens: int,
        max_queue_tokens: int,
    ) -> None:
        """`run` maps token ids of b texts to float32 [b, dimensions]; called in threads."""
        self._run = run
        self._dimensions = dimensions
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._queue = _Queue()
        self._order = 0
        self._jobs: set[_Job] = set()
        self._wake = asyncio.Condition()
        self._closing = False
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="engine")
        loop = asyncio.get_running_loop()
        self._workers = [
            loop.create_task(self._work(), name=f"batcher-{n}") for n in range(workers)
        ]

    @property
    def queued_tokens(self) -> int:
        return self._queue.tokens

    async def embed(self, texts: Sequence[Ids]) -> Batched:
        """Vectors of n >= 1 texts, in order.

        Raises OverloadedError before anything is queued, EngineError when a run fails. On
        cancellation the texts that have not started leave the queue.
        """
        import numpy as np

        if self._closing:
            raise NotReadyError("The server is stopping; try another one.", phase="draining")
        self._refuse_when_full(sum(len(ids) for ids in texts))
        job = _Job(
            texts=texts,
            vectors=np.empty((len(texts), self._dimensions), dtype=np.float32),
            done=asyncio.get_running_loop().create_future(),
            left=len(texts),
            queued_at=time.perf_counter(),
        )
        self._jobs.add(job)
        for index in sorted(range(len(texts)), key=lambda i: -len(texts[i])):
            self._queue.push(_Entry(job, index, self._order))
            self._order += 1
        try:
            async with self._wake:
                self._wake.notify(len(texts))
            await job.done
        finally:
            self._jobs.discard(job)
            if job.left:
                self._queue.drop(job)
        started = job.queued_at if job.started_at is None else job.started_at
        return Batched(job.vectors, started - job.queued_at, job.engine_seconds)

    def _refuse_when_full(self, tokens: int) -> None:
        # An empty queue takes any request: one larger than the bound could otherwise never run.
        waiting = self._queue.tokens
        if waiting and waiting + tokens > self._max_queue_tokens:
            raise OverloadedError(
                f"Overloaded: {waiting} tokens are waiting and this request has {tokens}; the "
                f"limit is {self._max_queue_tokens} (--max-queue-tokens). Try again later, or send "
                "less at once."
            )

    async def _work(self) -> None:
        while True:
            async with self._wake:
                await self._wake.wait_for(lambda: self._queue.buckets)
            entries = self._queue.take(self._max_batch_tokens)
            if entries:
                await self._run_one(entries)

    async def _run_one(self, entries: list[_Entry]) -> None:
        started = time.perf_counter()
        for entry in entries:
            if entry.job.started_at is None:
                entry.job.started_at = started
        try:
            vectors = await self._in_thread(entries)
        except Exception as why:  # whatever the runtime raises, its waiters must hear of it
            await self._after_failure(entries, why)
            return
        seconds = time.perf_counter() - started
        for job in {e.job for e in entries}:
            job.engine_seconds += seconds
        for entry, vector in zip(entries, vectors, strict=True):
            self._settle(entry, vector)

    async def _in_thread(self, entries: list[_Entry]) -> Vectors:
        loop = asyncio.get_running_loop()
        vectors = await loop.run_in_executor(self._pool, self._run, [e.ids for e in entries])
        if vectors.shape != (len(entries), self._dimensions):
            raise EngineError(
                f"The engine gave vectors of shape {vectors.shape} for {len(entries)} texts."
            )
        return vectors

    def _settle(self, entry: _Entry, vector: NDArray[np.float32]) -> None:
        job = entry.job
        job.vectors[entry.index] = vector
        job.left -= 1
        if not job.left and not job.done.done():
            job.done.set_result(None)

    async def _after_failure(self, entries: list[_Entry], why: Exception) -> None:
        """Fail the one request concerned; several are run apart first, to find which it is."""
        jobs = {e.job for e in entries}
        if len(jobs) > 1:
            for job in jobs:
                await self._run_one([e for e in entries if e.job is job])
            return
        for job in jobs:
            self._queue.drop(job)
            if not job.done.done():
                error = (
                    why if isinstance(why, EmbedError) else EngineError(f"Engine failure: {why}")
                )
                job.done.set_exception(error)

    async def close(self) -> None:
        """Refuse what is new, finish what is queued, stop the workers."""
        self._closing = True
        waiting = [job.done for job in self._jobs]
        if waiting:
            await asyncio.wait(waiting)
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        self._pool.shutdown(wait=True)
