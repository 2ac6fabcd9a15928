"""Threads that share the work of one call.

The call divides its work by itself (`ck_take` in kernels.c): when one rank's call has returned,
all is done, and a rank that got no processor in time finds nothing left. So the caller waits for
nobody. It must never begin a call before everybody is out of the last one.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import EngineError

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    Turn = SimpleQueue[tuple[Any] | None]
    Back = SimpleQueue[None]


class Team:
    """`ranks` threads, of which the caller's is the first; the others sleep between calls."""

    def __init__(self, call: Callable[[Any, int], object], ranks: int) -> None:
        """Start the threads. Raises EngineError where the system gives no more of them."""
        self._call = call
        self._busy = Lock()
        self._away = 0
        self._back: Back = SimpleQueue()
        self._turns: list[Turn] = []
        self._threads: list[Thread] = []
        for rank in range(1, ranks):
            turn: Turn = SimpleQueue()
            # Daemons: a process that ends without close() must not wait for them.
            thread = Thread(
                target=_take_part,
                args=(call, rank, turn, self._back),
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

    def run(self, work: Any) -> bool:
        """`call(work, rank)` by every rank; False, and nothing done, where the team is not
        complete or not all of it has come back.

        Returns when the caller's own call has. `work` is kept until all have.
        """
        if not self._busy.acquire(blocking=False):
            return False
        try:
            if not self._is_ready():
                return False
            self._away = len(self._turns)
            for turn in self._turns:
                turn.put((work,))
            self._call(work, 0)
            return True
        finally:
            self._busy.release()

    def _is_ready(self) -> bool:
        while self._away:
            try:
                self._back.get_nowait()
            except Empty:
                return False
            self._away -= 1
        return bool(self._threads) and all(thread.is_alive() for thread in self._threads)

    def close(self) -> None:
        """End the threads, after what they do now. To be called once or more often."""
        with self._busy:
            for turn in self._turns:
                turn.put(None)
            for thread in self._threads:
                thread.join()
            self._turns.clear()
            self._threads.clear()


def _take_part(call: Callable[[Any, int], object], rank: int, turn: Turn, back: Back) -> None:
    while (given := turn.get()) is not None:
        try:
            call(*given, rank)
        except Exception:
            # The caller has its result all the same; from now on it works alone.
            _log().exception("Thread %s of the engine has failed.", rank)
            return
        del given  # it may be large, and the next turn far away
        back.put(None)


def _log() -> logging.Logger:
    import logging  # not at the top: every start reads this module

    return logging.getLogger(__name__)
