"""Who computes micro-batches: what the batcher needs of them, and threads that call a function.

It exists so that the batcher says what runs next, and not how. It must never choose between runs:
what it is given, it runs in that order. (`run_queue` has the other kind.)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]
    Call = Callable[[list[Ids]], Vectors]
    """Token ids of b texts to float32 [b, dimensions]; called in threads."""


class Run(Protocol):
    """A micro-batch that is to be computed."""

    @property
    def seconds(self) -> float:
        """That it took; 0 until it is done."""

    @property
    def outcome(self) -> Vectors | Exception | None:
        """float32 [b, dimensions] once it is done, or why not."""

    def release(self) -> None:
        """Let others have what it runs in: once it is done, or will never be."""


class Runs(Protocol):
    """Threads that compute. All but `close` is called on the event loop, which they tell, by what
    they were made with, whenever a run is done."""

    def prepare(self, batch: list[Ids], *, alone: bool = False) -> Run:
        """`alone`: on all threads, since none has anything to do; to be submitted. Raises
        EngineError for a batch that cannot be computed."""

    def submit(self, run: Any, *, goes_on: bool) -> None:
        """For the next free thread, which `goes_on` with what is offered meanwhile, or does not."""

    def offer(self, run: Any) -> None:
        """Have `run` lie ready for the first thread that is done with another. One at a time."""

    def take_back(self) -> bool:
        """Whether what was offered is the caller's again; otherwise a thread has it."""

    @property
    def has_offer(self) -> bool:
        """Whether no thread has taken what was offered."""

    def close(self) -> None:
        """End the threads, after all that was submitted. Blocks: for another thread."""

    def release(self) -> None:
        """Give everything back, after `close`."""


class CallRun:
    """Implements `Run`: one call of a function."""

    __slots__ = ("batch", "call", "goes_on", "outcome", "seconds")

    def __init__(self, call: Call, batch: list[Ids]) -> None:
        self.call = call
        self.batch = batch
        self.goes_on = False
        self.seconds = 0.0
        self.outcome: Vectors | Exception | None = None

    def release(self) -> None:
        """There is nothing to give back."""


class ThreadedRuns:
    """Implements `Runs` by threads of `pool` that call `call`, or `call_alone`, which has means of
    its own to take more than one.

    `told` is called on the event loop, inside which this is to be made. After a run that failed a
    thread does not go on.
    """

    def __init__(
        self, call: Call, call_alone: Call, pool: Executor, told: Callable[[], object]
    ) -> None:
        self._call = call
        self._call_alone = call_alone
        self._pool = pool
        self._told: Callable[[], object] = told
        self._loop = asyncio.get_running_loop()
        self._ready: deque[CallRun] = deque()  # threads take, only the event loop puts

    def prepare(self, batch: list[Ids], *, alone: bool = False) -> CallRun:
        return CallRun(self._call_alone if alone else self._call, batch)

    def submit(self, run: CallRun, *, goes_on: bool) -> None:
        run.goes_on = goes_on
        self._pool.submit(self._work, run)

    def offer(self, run: CallRun) -> None:
        run.goes_on = True
        self._ready.append(run)

    def take_back(self) -> bool:
        with suppress(IndexError):
            self._ready.popleft()
            return True
        return False

    @property
    def has_offer(self) -> bool:
        return bool(self._ready)

    def _work(self, first: CallRun) -> None:
        following: CallRun | None = first
        while following is not None:
            run, following = following, None
            started = time.perf_counter()
            outcome: Vectors | Exception | None
            try:
                outcome = run.call(run.batch)
            except Exception as why:  # whatever the runtime raises, its waiters must hear of it
                outcome = why
            run.outcome = outcome
            if run.goes_on and not isinstance(outcome, Exception):
                with suppress(IndexError):  # there is none, or another thread was faster
                    following = self._ready.popleft()
            # Last: from here on the run is done, and the event loop's. A clock may stand still.
            run.seconds = (time.perf_counter() - started) or 1e-9
            self._loop.call_soon_threadsafe(self._told)

    def close(self) -> None:
        self._pool.shutdown()

    def release(self) -> None:
        self._told = self._call = self._call_alone = nothing


def nothing(*_: object, **__: object) -> Any:
    """In the place of what is called no more: that may hold who holds us, and a circle outlives its
    last user, with a model in it."""
