"""What every closed-loop load shares: what is asked of it, what counts, and the figures of it.

The window opens while all clients are already busy and closes while they still are; requests
are counted by when they end, so neither end of the run bends the figure. It must never count
warm-up, nor a refused request as an answered one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cortex_embed.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TICK = 0.1
"""Seconds between two looks at what time it is, where nothing else happens."""
_WARM_SHARE = 0.2
_WARM_MOST = 2.0
_ENOUGH = 10
_OVERTIME = 20.0
_REFUSED_PAUSE = 0.02


def _unheard(_: float) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Load:
    """C clients that each send their next request when the last is answered.

    They do so for `seconds`, after a warm-up that is not counted, with `batch` texts a request.
    `pause` is what a client waits between its requests, in seconds; `tick` hears of every passed
    part of a second, warm-up excluded.
    """

    concurrency: int
    batch: int
    seconds: float
    pause: float = 0.0
    tick: Callable[[float], None] = _unheard

    @property
    def rest(self) -> float:
        """Seconds that a client waits where it does: after a refusal always."""
        return self.pause or _REFUSED_PAUSE


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of the table. Rates are per second, latencies in milliseconds."""

    concurrency: int
    seconds: float
    requests: int
    refused: int
    requests_per_second: float
    texts_per_second: float
    tokens_per_second: float | None
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


class Window:
    """Counts what ends between its opening and its close, both by `time.perf_counter`."""

    __slots__ = (
        "_closes", "_latencies", "_load", "_opens", "_refused", "_seen", "_tokens",
        "_tokens_known", "ended", "look_at",
    )  # fmt: skip

    def __init__(self, load: Load) -> None:
        """The warm-up of `load` begins now."""
        self._load = load
        self._opens = time.perf_counter() + min(_WARM_MOST, _WARM_SHARE * load.seconds)
        self._closes = self._opens + load.seconds
        self._latencies: list[float] = []
        self._refused = 0
        self._tokens = 0
        self._tokens_known = True
        self._seen = self._opens
        self.look_at = self._opens
        """When `look` is due."""
        self.ended: float | None = None
        """When the last that counts ended; None while the clients are to go on."""

    def answered(self, now: float, seconds: float, tokens: int | None) -> None:
        """A request ended `now`, `seconds` after it was sent; None: the target names no tokens."""
        if now < self._opens or self.ended is not None:
            return
        self._latencies.append(seconds)
        if tokens is None:
            self._tokens_known = False
        else:
            self._tokens += tokens
        if now >= self._closes:
            self._end(now)

    def refused(self, now: float) -> None:
        """The target shed a request `now`."""
        if now < self._opens or self.ended is not None:
            return
        self._refused += 1
        if now >= self._closes:
            self._end(now)

    def _end(self, now: float) -> None:
        # A slow target gets overtime until a few requests have ended.
        if len(self._latencies) >= _ENOUGH or now >= self._closes + _OVERTIME:
            self.ended = now

    def look(self, now: float) -> None:
        """Tell `tick` what part of the window has passed since the last look."""
        self.look_at = now + TICK
        now = min(now, self._closes)
        if now > self._seen:
            self._load.tick(now - self._seen)
            self._seen = now

    def sample(self) -> Sample:
        """The figures. Raises TargetError where no request was answered."""
        seconds = (self.ended or self._closes) - self._opens
        count = len(self._latencies)
        if not count:
            raise TargetError(
                f"No request was answered in {seconds:.0f} s at concurrency "
                f"{self._load.concurrency} ({self._refused} were refused). Use a longer "
                "--duration or less --concurrency."
            )
        ordered = sorted(self._latencies)
        return Sample(
            concurrency=self._load.concurrency,
            seconds=seconds,
            requests=count,
            refused=self._refused,
            requests_per_second=count / seconds,
            texts_per_second=count * self._load.batch / seconds,
            tokens_per_second=self._tokens / seconds if self._tokens_known else None,
            p50_ms=1000 * percentile(ordered, 50),
            p95_ms=1000 * percentile(ordered, 95),
            p99_ms=1000 * percentile(ordered, 99),
            max_ms=1000 * ordered[-1],
        )


def percentile(ordered: Sequence[float], share: float) -> float:
    """The smallest of `ordered` that `share` percent of them do not exceed (nearest rank)."""
    rank = -(-len(ordered) * share // 100)
    return ordered[max(0, int(rank) - 1)]
