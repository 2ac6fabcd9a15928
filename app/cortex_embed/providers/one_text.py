"""One short text in the micro-batcher, and the caller who is told of it.

It exists for callers that have no task to wait in: starting and waking one takes longer than all
that is done for such a text here. It must never tell anybody twice, or who has left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortex_embed.providers.batcher import Batched
from cortex_embed.providers.parts import pooled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.domain import Pooled
    from cortex_embed.providers.batcher import MicroBatcher
    from cortex_embed.providers.lanes import Job
    from cortex_embed.providers.tokenizer import Encoded


class OneText:
    """Implements `domain.Submitted`, and `lanes.Waiter` for the micro-batcher."""

    __slots__ = ("_batcher", "_encoded", "_is_done", "_job", "_seconds", "_told", "_tokens")

    def __init__(
        self,
        batcher: MicroBatcher,
        encoded: Sequence[Encoded],
        tokens: int,
        seconds: float,
        told: Callable[[Pooled | Exception], object],
    ) -> None:
        """Queue it: `encoded` is one text of so many `tokens`, which took so many `seconds`.

        Raises what `MicroBatcher.submit` raises.
        """
        self._batcher = batcher
        self._encoded = encoded
        self._tokens = tokens
        self._seconds = seconds
        self._told = told
        self._is_done = False
        self._job: Job = batcher.submit([one.ids for one in encoded], self)

    def done(self) -> bool:
        return self._is_done

    def set_result(self, _result: None, /) -> None:
        self.cancel()
        batched = Batched.of(self._job)
        self._told(pooled(self._encoded, self._tokens, batched, self._seconds))

    def set_exception(self, why: Exception, /) -> None:
        self.cancel()
        self._told(why)

    def cancel(self) -> None:
        """See `domain.Submitted.cancel`."""
        self._is_done = True
        self._batcher.leave(self._job)
