"""A lane of the micro-batcher: the texts that wait, and which of them go together next.

It exists so that the rule for what shares a run is on one page, apart from threads and waiters. It
must never wait, or know what a lane is for.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.domain import Priority
    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]


class Waiter(Protocol):
    """Who is told that a job is done, or has failed. A future is one."""

    def done(self) -> bool:
        """Whether it was told, or waits no more."""

    def set_result(self, result: None, /) -> object:
        """All vectors are there. Never raises."""

    def set_exception(self, why: Exception, /) -> object:
        """There will be none. Never raises."""


class Job(msgspec.Struct, eq=False):
    """One request's texts on their way through the queue."""

    texts: Sequence[Ids]
    vectors: Vectors
    done: Waiter
    left: int
    lane: Priority
    queued_at: float
    started_at: float | None = None
    engine_seconds: float = 0.0


class Batched(msgspec.Struct, frozen=True):
    """`vectors` float32 [n, dimensions]; seconds before the first run, and inside runs."""

    vectors: Vectors
    queue_seconds: float
    engine_seconds: float

    @classmethod
    def of(cls, job: Job) -> Batched:
        """Of one that is done."""
        started = job.queued_at if job.started_at is None else job.started_at
        return cls(job.vectors, started - job.queued_at, job.engine_seconds)


class Entry(msgspec.Struct, eq=False):
    """Text `index` of `job`; `order` is its place in the arrival order of all texts."""

    job: Job
    index: int
    order: int
    length: int

    @property
    def ids(self) -> Ids:
        """int64 [length]."""
        return self.job.texts[self.index]


class Lane(msgspec.Struct):
    """One lane: waiting texts by length, first in first out among those of one length; in one
    line (length 0) where runs are not `padded`."""

    padded: bool = True
    buckets: dict[int, deque[Entry]] = msgspec.field(default_factory=dict)
    tokens: int = 0

    @property
    def texts(self) -> int:
        """How many wait."""
        return sum(map(len, self.buckets.values()))

    def push(self, entry: Entry) -> None:
        """`entry` waits, behind those that do."""
        self.tokens += entry.length
        self.buckets.setdefault(entry.length if self.padded else 0, deque()).append(entry)

    def drop(self, job: Job) -> None:
        """Forget what is left of a job that was cancelled or has failed."""
        for key in list(self.buckets):
            kept = deque(e for e in self.buckets[key] if e.job is not job)
            self.tokens -= sum(e.length for e in self.buckets[key] if e.job is job)
            self._put_back(key, kept)

    def _put_back(self, key: int, entries: deque[Entry]) -> None:
        if entries:
            self.buckets[key] = entries
        else:
            self.buckets.pop(key, None)

    def take(self, budget: int) -> list[Entry]:
        """The oldest text, and others of its length and the next shorter ones that fit.

        The padded size, longest x count, stays within `budget` unless one text alone exceeds it.
        Without padding: the oldest texts, whatever their lengths, and their tokens within it.
        """
        if not self.padded:
            return self._take_in_line(budget)
        if not self.buckets:
            return []
        head = min(self.buckets, key=lambda key: self.buckets[key][0].order)
        taken: list[Entry] = []
        # Down to three quarters of the head's length: padding then costs less than a
        # second run would.
        for key in range(head, max(0, head * 3 // 4 - 1), -1):
            entries = self.buckets.get(key)
            while entries:
                if taken and head * (len(taken) + 1) > budget:
                    return self._taken(taken)
                taken.append(entries.popleft())
                self._put_back(key, entries)
        return self._taken(taken)

    def _take_in_line(self, budget: int) -> list[Entry]:
        line = self.buckets.get(0, deque())
        taken: list[Entry] = []
        while line and (not taken or line[0].length <= budget):
            taken.append(line.popleft())
            budget -= taken[-1].length
        self._put_back(0, line)
        return self._taken(taken)

    def _taken(self, entries: list[Entry]) -> list[Entry]:
        self.tokens -= sum(e.length for e in entries)
        return entries
