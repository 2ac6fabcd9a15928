"""Threads that take part in one call together, each with a rank of its own.

It exists for what meets inside the call (`ck_meet` in kernels.c): a rank that stayed away would
leave the others waiting for ever. So all take the same arguments, which either let every rank
in or none, and nobody is asked who is not there. It must never run two calls at once.
"""

from __future__ import annotations

from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import Callable

    Turn = SimpleQueue[tuple[Any, ...] | None]
    Ended = SimpleQueue[BaseException | None]


class Team:
    """`ranks` threads, of which the caller's is the first; the others sleep between calls."""

    def __init__(self, call: Callable[..., object], ranks: int) -> None:
        """Start the threads. Raises EngineError where the system gives no more of them."""
        self._call = call
        self._busy = Lock()
        self._ended: Ended = SimpleQueue()
        self._turns: list[Turn] = []
        self._threads: list[Thread] = []
        for rank in range(1, ranks):
            turn: Turn = SimpleQueue()
            # Daemons: a process that ends without close() must not wait for them.
            thread = Thread(
                target=_take_part,
                args=(call, rank, turn, self._ended),
                name=f"engine-rank-{rank}",
                daemon=True,
            )
            try:
                thread.start()
            except RuntimeError as why:
                self.close()
                raise EngineError(
                    f"{rank} of {ranks} threads could be started ({why}). Lower --threads."
                ) from None
            self._turns.append(turn)
            self._threads.append(thread)

    def run(self, *arguments: Any) -> bool:
        """`call(*arguments, rank)` by every rank at once; False, and nothing done, where the team
        is busy, closed or not complete.

        Returns when all have ended. Raises EngineError where one has failed.
        """
        if not self._busy.acquire(blocking=False):
            return False
        try:
            if not self._threads or not all(thread.is_alive() for thread in self._threads):
                return False
            for turn in self._turns:
                turn.put(arguments)
            failures: list[BaseException | None] = []
            try:
                self._call(*arguments, 0)
            finally:
                failures += [self._ended.get() for _ in self._turns]
            for why in failures:
                if why is not None:
                    raise EngineError(f"Engine failure: {why}") from why
            return True
        finally:
            self._busy.release()

    def close(self) -> None:
        """End the threads, after the call that is under way. To be called once or more often."""
        with self._busy:
            for turn in self._turns:
                turn.put(None)
            for thread in self._threads:
                thread.join()
            self._turns.clear()
            self._threads.clear()


def _take_part(call: Callable[..., object], rank: int, turn: Turn, ended: Ended) -> None:
    while (arguments := turn.get()) is not None:
        failed: BaseException | None = None
        try:
            call(*arguments, rank)
        except BaseException as why:
            failed = why
        ended.put(failed)
        del arguments  # they may be large, and the next turn far away
