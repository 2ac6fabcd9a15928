"""Short texts in the micro-batcher, and the caller who is told of them.

It exists for callers that have no task to wait in: starting and waking one takes longer than all
that is done for such a text here. It must never tell anybody twice, or who has left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortex_embed.domain import Pooled, Timings
from cortex_embed.providers.lanes import Batched

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.providers.batcher import MicroBatcher
    from cortex_embed.providers.lanes import Ids, Job


class Submission:
    """Implements `domain.Submitted`, and `lanes.Waiter` for the micro-batcher."""

    __slots__ = ("_batcher", "_is_done", "_job", "_lengths", "_seconds", "_told")

    def __init__(
        self,
        batcher: MicroBatcher,
        ids: Sequence[Ids],
        seconds: float,
        told: Callable[[Pooled | Exception], object],
    ) -> None:
        """Queue the texts with these ids, which it took so many `seconds` to find.

        Raises what `MicroBatcher.submit` raises.
        """
        self._batcher = batcher
        self._lengths = tuple(map(len, ids))
        self._seconds = seconds / len(ids)
        self._told = told
        self._is_done = False
        self._job: Job | None = batcher.submit(ids, self, priority="interactive")
        """Which holds this: it goes with the end, as `answers` has it."""

    def done(self) -> bool:
        return self._is_done

    def set_result(self, _result: None, /) -> None:
        assert self._job is not None  # noqa: S101 - who is done is told no more; this is for mypy
        batched = Batched.of(self._job)
        self.cancel()
        timings = Timings(self._seconds, batched.queue_seconds, batched.engine_seconds)
        lengths = self._lengths
        self._told(Pooled(batched.vectors, sum(lengths), timings=timings, lengths=lengths))

    def set_exception(self, why: Exception, /) -> None:
        self.cancel()
        self._told(why)

    def cancel(self) -> None:
        """See `domain.Submitted.cancel`."""
        self._is_done = True
        job, self._job = self._job, None
        if job is not None:
            self._batcher.leave(job)
