"""The micro-batcher: texts of one request and of concurrent requests share engine runs.

The one place that holds live state between requests. There is no timer: a free thread
takes what is there at once, and what arrives while all are busy is coalesced into the next
micro-batch, so waiting costs nothing when idle and batches grow with load. While much waits, the
next micro-batch lies ready for whichever thread is done first: a thread that had to wait for the
event loop between two of them would be idle for a twentieth of its time. The native engine's
threads do not even wait for the interpreter (`run_queue`).

Two lanes: short requests (interactive) overtake bulk, and while bulk keeps every thread
busy they have one thread more to themselves; bulk is never starved, since it gets every
fourth micro-batch at the least.

Promises: every waiter gets its vectors or its error; a failed run fails only the request
that caused it; a cancelled request leaves the queue; the queue is bounded. It must never
look inside a text or know what a model is.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Literal

import msgspec

from cortex_embed.errors import EmbedError, EngineError, NotReadyError, OverloadedError
from cortex_embed.metrics import Metrics
from cortex_embed.providers.lanes import Batched, Entry, Job, Lane
from cortex_embed.providers.runs import ThreadedRuns
from cortex_embed.providers.submission import Submission

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.domain import Pooled, Priority
    from cortex_embed.providers.lanes import Waiter
    from cortex_embed.providers.runs import Call, Run, Runs
    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]
    Kind = Literal["express", "bulk", "interactive"]

_INTERACTIVE_TOKENS = 128
"""A request of up to so many tokens is interactive: a question, not a document."""
_BULK_SHARE = 4
"""While both lanes wait, every so many-th micro-batch is bulk's."""
_MUCH_TOKENS = 20_000
_LEAST_SHARE = 64
"""Threads split what waits between them, but not into runs of fewer tokens: below this, a
run costs the same however short it is (the weights are read once a run)."""


class _Batch(msgspec.Struct, eq=False):
    """Texts of one run, `kind` being what counts them."""

    entries: list[Entry]
    kind: Kind
    run: Run


class MicroBatcher:
    """N threads, each given a micro-batch within the token budget whenever it is free.

    `run` computes a micro-batch on one thread; `run_alone`, where given, one text on all
    threads, for when there is nothing else to do. Where runs are `padded`, texts of like length
    share one; otherwise those that came next to each other. With more than `enough_tokens` a run
    computes each of them no faster; 0 where that is not known. `when_idle` is called in a thread
    when much work has come to its end. `queue` makes the queue that runs go by, given how many
    threads it has and what to call when runs are done; without one, threads of ours call `run`.
    Create it inside the event loop.
    """

    def __init__(
        self,
        run: Call,
        *,
        dimensions: int,
        workers: int,
        max_batch_tokens: int,
        max_queue_tokens: int,
        run_alone: Call | None = None,
        padded: bool = True,
        enough_tokens: int = 0,
        when_idle: Callable[[], object] | None = None,
        metrics: Metrics | None = None,
        queue: Callable[[int, Callable[[], object]], Runs] | None = None,
    ) -> None:
        self._when_idle = when_idle
        self._tokens_since_idle = 0
        self._resting: asyncio.Future[object] | None = None
        self._dimensions = dimensions
        self._max_batch_tokens = max_batch_tokens
        self._enough_tokens = min(enough_tokens or max_batch_tokens, max_batch_tokens)
        self._max_queue_tokens = max_queue_tokens
        self._lanes: dict[Priority, Lane] = {
            "interactive": Lane(padded), "bulk": Lane(padded),
        }  # fmt: skip
        self._order = 0
        self._jobs: set[Job] = set()
        self._emptied: asyncio.Future[None] | None = None
        self._again: deque[list[Entry]] = deque()
        self._ready: deque[_Batch] = deque()
        """What is offered to the threads, and counted as busy once one has taken it."""
        self._running: list[_Batch] = []
        self._since_bulk = 0
        self._workers = workers
        self._busy = 0
        self._busy_with_bulk = 0
        self._express_busy = False
        self._closing = False
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(workers + 1, thread_name_prefix="engine")
        self._metrics = metrics or Metrics()
        self._runs: Runs = (
            queue(workers + 1, self._hear)
            if queue is not None
            else ThreadedRuns(run, run_alone or run, self._pool, self._hear)
        )
        self._metrics.watch(self.backlog)

    @property
    def queued_tokens(self) -> int:
        return self._lanes["interactive"].tokens + self._lanes["bulk"].tokens

    def backlog(self) -> tuple[int, int]:
        """Texts and tokens that wait."""
        return sum(lane.texts for lane in self._lanes.values()), self.queued_tokens

    async def embed(
        self,
        texts: Sequence[Ids],
        *,
        priority: Priority | None = None,
        whole: int | None = None,
    ) -> Batched:
        """Vectors of n >= 1 texts, in order. Without a `priority`, size decides the lane.

        `whole` is for a request that comes in parts: with the first, about how many tokens all of
        it will have; with the others 0, since they are not refused once it has begun.
        Raises OverloadedError before anything is queued, EngineError when a run fails. On
        cancellation the texts that have not started leave the queue.
        """
        done = self._loop.create_future()
        job = self.submit(texts, done, priority=priority, whole=whole)
        try:
            await done
        finally:
            self.leave(job)
        return Batched.of(job)

    def submit(
        self,
        texts: Sequence[Ids],
        done: Waiter,
        *,
        priority: Priority | None = None,
        whole: int | None = None,
    ) -> Job:
        """As `embed`, without waiting: `done` is told, later. It must `leave` in the end."""
        import numpy as np

        if self._closing:
            raise NotReadyError("The server is stopping; try another one.", phase="draining")
        lengths = [len(ids) for ids in texts]
        tokens = sum(lengths)
        self._refuse_when_full(
            tokens if whole is None else whole, "" if whole is None else "about "
        )
        job = Job(
            texts=texts,
            vectors=np.empty((len(texts), self._dimensions), dtype=np.float32),
            done=done,
            left=len(texts),
            lane=priority or ("interactive" if tokens <= _INTERACTIVE_TOKENS else "bulk"),
            queued_at=time.perf_counter(),
        )
        self._jobs.add(job)
        lane = self._lanes[job.lane]
        for index in sorted(range(len(texts)), key=lengths.__getitem__, reverse=True):
            lane.push(Entry(job, index, self._order, lengths[index]))
            self._order += 1
        self._dispatch()
        return job

    def submit_short(
        self, texts: Sequence[Ids], seconds: float, told: Callable[[Pooled | Exception], object]
    ) -> Submission | None:
        """As `submit` of texts that it took so many `seconds` to tokenize, each a request by
        itself; `told` is told, see `submission`. None where one is too long for that lane."""
        if max(map(len, texts)) > _INTERACTIVE_TOKENS:
            return None
        return Submission(self, texts, seconds, told)

    def leave(self, job: Job) -> None:
        """Its waiter has been told, or waits no more: what has not started leaves the queue."""
        self._jobs.discard(job)
        if job.left:
            self._lanes[job.lane].drop(job)
            self._drop_ready()
        if not self._jobs and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _refuse_when_full(self, tokens: int, about: str) -> None:
        # An empty queue takes any request: one larger than the bound could otherwise never run.
        waiting = self.queued_tokens
        if tokens and waiting and waiting + tokens > self._max_queue_tokens:
            raise OverloadedError(
                f"Overloaded: {waiting} tokens are waiting and this request has {about}{tokens}; "
                f"the limit is {self._max_queue_tokens} (--max-queue-tokens). Try again later, or "
                "send less at once."
            )

    def _dispatch(self) -> None:
        """Give every free thread a micro-batch. Called whenever one may have become possible."""
        while self._busy < self._workers:
            if self._ready:  # put there just when the last thread had found nothing
                batch = self._ready.popleft()
                if self._runs.take_back():
                    self._submit(batch)
                else:
                    self._begun(batch)
                continue
            entries = self._retry() or self._next()
            if not entries:
                return
            self._start(entries, express=False)
        self._make_ready()
        if self._busy_with_bulk and not self._express_busy:
            entries = self._lanes["interactive"].take(self._max_batch_tokens)
            if entries:
                self._start(entries, express=True)

    def _make_ready(self) -> None:
        """Have the next micro-batch lie ready, unless it is short and might still grow."""
        if self._ready:
            return
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        grown = interactive.tokens >= _INTERACTIVE_TOKENS
        if self._again or grown or (bulk.buckets and not interactive.buckets):
            entries = self._retry() or self._next()
            if entries:
                batch = self._prepared(entries, entries[0].job.lane)
                if batch is not None:
                    self._ready.append(batch)
                    self._runs.offer(batch.run)

    def _retry(self) -> list[Entry]:
        """One request's part of a micro-batch that failed, unless its waiter has gone."""
        while self._again:
            entries = self._again.popleft()
            if not entries[0].job.done.done():
                return entries
        return []

    def _next(self) -> list[Entry]:
        """The next micro-batch: interactive first, but bulk's share is bulk's."""
        interactive, bulk = self._lanes["interactive"], self._lanes["bulk"]
        turn_of_bulk = self._since_bulk >= _BULK_SHARE - 1
        lane = bulk if bulk.buckets and (turn_of_bulk or not interactive.buckets) else interactive
        self._since_bulk = 0 if lane is bulk or not bulk.buckets else self._since_bulk + 1
        # Of bulk, what is left shrinks towards the end, so that all threads finish together. Short
        # requests have no common end: they are split between the threads that are free, and a run
        # is no longer than it must be. Who is answered asks again: while some of many clients are
        # told, others have to be computed, and of two runs of all of them one would be told whole.
        threads = self._workers if lane is bulk else max(1, self._workers - self._busy)
        share = max(_LEAST_SHARE, -(-lane.tokens // threads))
        limit = self._max_batch_tokens if lane is bulk else self._enough_tokens
        return lane.take(min(limit, share))

    def _start(self, entries: list[Entry], *, express: bool) -> None:
        alone = len(entries) == 1 and not self._busy and not self.queued_tokens
        kind: Kind = "express" if express else entries[0].job.lane
        batch = self._prepared(entries, kind, alone=alone)
        if batch is not None:
            self._submit(batch)

    def _prepared(self, entries: list[Entry], kind: Kind, *, alone: bool = False) -> _Batch | None:
        """None where that failed."""
        try:
            return _Batch(entries, kind, self._runs.prepare([e.ids for e in entries], alone=alone))
        except Exception as why:  # whatever it is, the waiters must hear of it
            self._loop.call_soon(self._settle_failure, entries, why)
            return None

    def _submit(self, batch: _Batch) -> None:
        self._begun(batch)
        self._runs.submit(batch.run, goes_on=batch.kind != "express")

    def _begun(self, batch: _Batch) -> None:
        """A thread has `batch`, or will have it at once."""
        started = time.perf_counter()
        for entry in batch.entries:
            if entry.job.started_at is None:
                entry.job.started_at = started
        self._count(batch.kind, 1)
        self._running.append(batch)

    def _count(self, kind: Kind, change: int) -> None:
        if kind == "express":
            self._express_busy = change > 0
            return
        self._busy += change
        self._busy_with_bulk += change if kind == "bulk" else 0

    def _hear(self) -> None:
        """Runs are done, and perhaps the one that lay ready is taken."""
        if self._ready and not self._runs.has_offer:
            self._begun(self._ready.popleft())
        for batch in [one for one in self._running if one.run.seconds]:
            self._running.remove(batch)
            self._finished(batch)

    def _finished(self, batch: _Batch) -> None:
        self._count(batch.kind, -1)
        entries, outcome, seconds = batch.entries, batch.run.outcome, batch.run.seconds
        batch.run.release()
        shape = getattr(outcome, "shape", None)
        if not isinstance(outcome, Exception) and shape != (len(entries), self._dimensions):
            outcome = EngineError(
                f"The engine gave vectors of shape {shape} for {len(entries)} texts."
            )
        if outcome is None or isinstance(outcome, Exception):
            self._settle_failure(entries, outcome or EngineError("The engine gave nothing."))
        else:
            self._dispatch()  # first, or a thread would wait for those who are told
            self._metrics.ran([e.length for e in entries], seconds)
            self._settle(entries, outcome, seconds)
        self._rest(sum(e.length for e in entries))

    def _settle_failure(self, entries: list[Entry], why: Exception) -> None:
        self._after_failure(entries, why)
        self._dispatch()

    def _rest(self, tokens: int) -> None:
        """After much work and with none left, let memory go: not after every question."""
        self._tokens_since_idle += tokens
        if self._busy or self._express_busy or self._closing:
            return
        if self._when_idle is not None and self._tokens_since_idle > _MUCH_TOKENS:
            self._tokens_since_idle = 0
            self._resting = self._loop.run_in_executor(self._pool, self._when_idle)

    def _settle(self, entries: list[Entry], vectors: Vectors, seconds: float) -> None:
        for entry, vector in zip(entries, vectors, strict=True):
            job = entry.job
            job.vectors[entry.index] = vector
            job.left -= 1
        for job in {e.job for e in entries}:
            job.engine_seconds += seconds
            if not job.left and not job.done.done():
                job.done.set_result(None)

    def _after_failure(self, entries: list[Entry], why: Exception) -> None:
        """Fail the one request concerned; several are run apart first, to find which it is."""
        jobs = {e.job for e in entries}
        if len(jobs) > 1:
            self._again.extend([e for e in entries if e.job is job] for job in jobs)
            return
        for job in jobs:
            self._lanes[job.lane].drop(job)
            if not job.done.done():
                error = (
                    why if isinstance(why, EmbedError) else EngineError(f"Engine failure: {why}")
                )
                job.done.set_exception(error)
        self._drop_ready()

    def _drop_ready(self) -> None:
        """Forget what lies ready and nobody waits for."""
        for batch in list(self._ready):
            nobody = all(e.job.done.done() for e in batch.entries)
            if nobody and self._runs.take_back():  # otherwise a thread has it
                self._ready.remove(batch)
                batch.run.release()

    async def close(self) -> None:
        """Refuse what is new, finish what is queued, stop the threads."""
        self._closing = True
        if self._jobs:
            self._emptied = self._loop.create_future()
            await self._emptied
        # A run whose request was cancelled may still be under way.
        await self._loop.run_in_executor(None, self._pool.shutdown)
        await self._loop.run_in_executor(None, self._runs.close)
        self._runs.release()
        self._metrics.forget(self.backlog)
