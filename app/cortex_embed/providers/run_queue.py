"""Native runs, taken by threads that never need the interpreter.

A thread of Python needs the interpreter's lock before a run and after it, and under many short
requests the event loop has that most of the time (the bench's server, int8, 64 clients: a run of
2 ms, then 0.8 ms of waiting). Here the event loop lays runs out, the kernels' own queue gives them
to threads, and a byte in a pipe tells the event loop that one is done. It must never touch a run
that a thread may have.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import EngineError
from cortex_embed.providers import runs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.kernels import binding
    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]
    Prepare = Callable[[Sequence[Ids], int], "NativeRun"]

_TOLD_AT_ONCE = 4096


class NativeRun:
    """Implements `runs.Run`: calls of the kernels, one for each thread that shares the run, and all
    that their addresses point to."""

    __slots__ = ("_kept", "_library", "_release", "addresses", "outcome", "works")

    def __init__(
        self,
        library: Any,
        works: Sequence[binding.Work],
        outcome: Vectors,
        kept: tuple[object, ...],
        release: Callable[[], object],
    ) -> None:
        self._library = library
        self._release = release
        self._kept = kept
        self.works = works
        self.addresses = [ctypes.addressof(work) for work in works]
        self.outcome = outcome

    @property
    def seconds(self) -> float:
        return float(max(map(self._library.ck_nanoseconds, self.addresses))) / 1e9

    @property
    def is_left(self) -> bool:
        """Whether no thread is in it any more: who comes late still reads, and finds nothing."""
        return all(map(self._library.ck_nanoseconds, self.addresses))

    def release(self) -> None:
        self._release()


class RunQueue:
    """Implements `runs.Runs`, with `threads` of its own.

    `prepare` lays a run out for so many threads and raises EngineError; `told` is called on the
    event loop when runs are done. Create it inside the event loop.
    """

    def __init__(
        self, library: Any, prepare: Prepare, threads: int, told: Callable[[], object]
    ) -> None:
        """Start the threads. Raises EngineError where the system gives no more of them."""
        self._prepare: Callable[..., Any] = prepare
        self._library = library
        self._told: Callable[[], object] = told
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._queue = library.ck_queue_new(self._writer, threads)
        if not self._queue:
            raise MemoryError
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._hear)
        self._threads: list[threading.Thread] = []
        self._shared: list[NativeRun] = []
        """Kept for threads that come late."""
        for number in range(threads):
            # Daemons: a process that ends without close() must not wait for them.
            thread = threading.Thread(
                target=library.ck_serve,
                args=(self._queue,),
                name=f"engine-{number}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError as why:
                self.close()
                self.release()
                raise EngineError(
                    f"{number} of {threads} threads could be started ({why}). Lower --threads."
                ) from None
            self._threads.append(thread)

    def prepare(self, batch: Sequence[Ids], *, alone: bool = False) -> NativeRun:
        found: NativeRun = self._prepare(batch, len(self._threads) - 1 if alone else 1)
        return found

    def submit(self, run: NativeRun, *, goes_on: bool) -> None:
        for work, address in zip(run.works, [*run.addresses[1:], None], strict=True):
            work.goes_on = goes_on
            work.after = address
        self._library.ck_submit(self._queue, run.addresses[0])
        if len(run.works) > 1:
            self._shared = [one for one in self._shared if not one.is_left] + [run]

    def offer(self, run: NativeRun) -> None:
        run.works[0].goes_on = True
        self._library.ck_offer(self._queue, run.addresses[0])

    def take_back(self) -> bool:
        return self._library.ck_offer(self._queue, None) is not None

    @property
    def has_offer(self) -> bool:
        return bool(self._library.ck_has_offer(self._queue))

    def _hear(self) -> None:
        os.read(self._reader, _TOLD_AT_ONCE)
        self._told()

    def close(self) -> None:
        self._library.ck_close(self._queue)
        for thread in self._threads:
            thread.join()

    def release(self) -> None:
        self._loop.remove_reader(self._reader)
        os.close(self._reader)
        os.close(self._writer)
        self._library.ck_queue_free(self._queue)
        self._told = self._prepare = runs.nothing  # they hold who holds this, and the model
