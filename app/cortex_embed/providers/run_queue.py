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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.kernels import binding
    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]
    Prepare = Callable[[Sequence[Ids]], "NativeRun"]

_TOLD_AT_ONCE = 4096


class NativeRun:
    """Implements `runs.Run`: one call of the kernels, and all that its addresses point to."""

    __slots__ = ("_kept", "_library", "_release", "address", "outcome", "work")

    def __init__(
        self,
        library: Any,
        work: binding.Work,
        outcome: Vectors,
        kept: tuple[object, ...],
        release: Callable[[], object],
    ) -> None:
        self._library = library
        self._release = release
        self._kept = kept
        self.work = work
        self.address = ctypes.addressof(work)
        self.outcome = outcome

    @property
    def seconds(self) -> float:
        return float(self._library.ck_nanoseconds(self.address)) / 1e9

    def release(self) -> None:
        self._release()


class RunQueue:
    """Implements `runs.Runs`, with `threads` of its own.

    `prepare` lays a run out and raises EngineError; `told` is called on the event loop when runs
    are done. Create it inside the event loop.
    """

    def __init__(
        self, library: Any, prepare: Prepare, threads: int, told: Callable[[], object]
    ) -> None:
        """Start the threads. Raises EngineError where the system gives no more of them."""
        self.prepare = prepare
        self._library = library
        self._told = told
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        self._queue = library.ck_queue_new(self._writer)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._hear)
        self._threads: list[threading.Thread] = []
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

    def submit(self, run: NativeRun, *, goes_on: bool) -> None:
        run.work.goes_on = goes_on
        self._library.ck_submit(self._queue, run.address)

    def offer(self, run: NativeRun) -> None:
        run.work.goes_on = True
        self._library.ck_offer(self._queue, run.address)

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
