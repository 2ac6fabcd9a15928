"""The shortest way: requests that are like an answered one but for their text, many at a time.

A client's bodies are alike, as its heads are: what stands around the text says the same every
time, and need not be decoded again, and a reply is like the last one but for its numbers. Such
requests that come while others are computed share all the rest: one submission, one normalization,
one count. Nobody waits for that, and there is no task. With 64 connections, it is a third of what
the event loop has to do for a request by itself (`nox -s http`).

It must never take a body for like another that is not, byte for byte around its text. What it
cannot answer with 200 it hands on to the next way, each request by itself: `fast_path` has that.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from cortex_embed.domain import SHORT_CHARS, EmbedResult, Timings
from cortex_embed.server import handlers
from cortex_embed.server.middleware import CLIENT_LEFT
from cortex_embed.server.written import Head
from cortex_embed.vectors import to_base64
from cortex_embed.wire.dialect import Asked
from cortex_embed.wire.encoding import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.domain import Submitted
    from cortex_embed.server.keys import Traffic
    from cortex_embed.service import EmbeddingService
    from cortex_embed.vectors import Vectors
    from cortex_embed.wire.dialect import ErrorDialect, ServerDialect

    Split = Callable[[Vectors], Sequence[bytes]]

MOST = 10
"""Requests of a lot. Larger ones begin later than they could; with 64 connections and int8, lots of
3, 6, 10, 16 and 64 gave 5,536, 5,873, 5,979, 5,810 and 5,540 requests a second."""
_MOST_AROUND = 512
"""Bytes that are remembered of a body: nobody needs more, and anybody may send more."""
_PROBE = "another text"
_PROBE_TIMINGS = Timings(1.0, 1.0, 1.0)


class Template:
    """A body in which one text may be another: the bytes up to its opening quotation mark and from
    its closing one on, and what it asked for, in the words of `speaker`."""

    __slots__ = (
        "_around",
        "_begin",
        "_end",
        "_split",
        "after",
        "asked",
        "before",
        "dialect",
        "lot",
        "speaker",
    )

    def __init__(self, before: bytes, after: bytes, asked: Asked, speaker: ServerDialect) -> None:
        self.before = before
        self.after = after
        self._begin, self._end = len(before), len(after)
        # No text that was embedded is kept.
        self.asked = dataclasses.replace(asked, request=replace(asked.request, texts=()))
        self.speaker = speaker
        self.dialect: ErrorDialect = asked.dialect or speaker
        """Whose words it used, where the path is shared."""
        self.lot: Lot | None = None
        """What others may still join."""
        self._split: Split | None = _numbers
        self._around: dict[int, tuple[bytes, bytes]] = {}

    @classmethod
    def of(cls, body: bytes, asked: Asked, speaker: ServerDialect) -> Template | None:
        """None for a body with more than one text, or with much besides, and where its text stands
        is not certain."""
        texts = asked.request.texts
        if len(texts) != 1 or not isinstance(texts[0], str):
            return None
        # Without a backslash every string stands as it is; what stands there once is no other
        # field's value, and no piece of the syntax.
        quoted = f'"{texts[0]}"'.encode()
        at = body.find(quoted)
        if at < 0 or at != body.rfind(quoted) or b"\\" in body:
            return None
        if len(body) - len(quoted) > _MOST_AROUND:
            return None
        return cls(body[: at + 1], body[at + len(quoted) - 1 :], asked, speaker)

    def is_like(self, other: Template) -> bool:
        return (self.before, self.after) == (other.before, other.after)

    @property
    def says_twice(self) -> bool:
        """Whether a key is there twice: of two texts, the one that was not asked for would stay."""
        twice = False

        def look(pairs: list[tuple[str, object]]) -> None:
            nonlocal twice
            twice = twice or len(dict(pairs)) < len(pairs)

        json.loads((self.before + self.after).decode(), object_pairs_hook=look)
        return twice

    def text_of(self, body: bytes) -> str | None:
        """The text of `body` if that is like this one; None if it is not, or not plainly so."""
        if not body.startswith(self.before) or not body.endswith(self.after):
            return None
        inner = body[self._begin : len(body) - self._end]
        if len(inner) > SHORT_CHARS or b'"' in inner or b"\\" in inner:
            return None
        try:
            text = inner.decode()
        except UnicodeDecodeError:
            return None
        return text if text.isprintable() and text else None  # JSON has no bare control character

    def replies(self, texts: Sequence[str], result: EmbedResult) -> list[tuple[bytes, ...]]:
        """The body for each text, of which `result` has vector and length, in pieces."""
        rows = self._split(result.vectors) if self._split else None
        lengths = result.lengths
        if rows is None:
            return [(self._encoded(text, result, at),) for at, text in enumerate(texts)]
        around = self._around
        for at, length in enumerate(lengths):
            if length not in around and not self._learn(texts[at], result, at):
                return self.replies(texts, result)
        pairs = zip(map(around.__getitem__, lengths), rows, strict=True)
        return [(before, row, after) for (before, after), row in pairs]

    def _learn(self, text: str, result: EmbedResult, at: int) -> bool:
        """Remember what stands around the numbers in a reply to so many tokens; False, and try
        them written otherwise, where a reply of other numbers does not have just that around."""
        assert self._split is not None  # noqa: S101 - who calls has looked; this is for mypy
        vector = result.vectors[at : at + 1]
        before, row, after = self._encoded(text, result, at).partition(self._split(vector)[0])
        another = replace(result, vectors=-result.vectors, timings=_PROBE_TIMINGS)
        if row and before + self._split(-vector)[0] + after == self._encoded(
            _PROBE + text, another, at
        ):
            self._around[result.lengths[at]] = before, after
            return True
        self._split = _base64 if self._split is _numbers else None
        self._around = {}
        return False

    def _encoded(self, text: str, result: EmbedResult, at: int) -> bytes:
        asked = self.asked
        request = replace(asked.request, texts=(text,))
        asked = Asked(request, asked.encoding, asked.dtypes, asked.user, asked.dialect)
        alone = replace(result, vectors=result.vectors[at : at + 1], tokens=result.lengths[at])
        return self.speaker.encode_response(asked, alone)


def _numbers(vectors: Vectors) -> list[bytes]:
    """Each row as JSON has it."""
    return list(map(encode, vectors))  # by itself: what is written stays in the nearest cache


def _base64(vectors: Vectors) -> list[bytes]:
    return [to_base64(vector).encode() for vector in vectors]


class Member(Protocol):
    """A connection whose request is part of a lot, which it is until one of these is called."""

    def replied(self, reply: bytes) -> None:
        """Send `reply`. Never raises."""

    def handed_on(self) -> None:
        """The request is to go another way. Never raises."""


class Lot:
    """Requests of one template that came together."""

    def __init__(
        self, service: EmbeddingService, traffic: Traffic, template: Template, route: str
    ) -> None:
        self._service = service
        self._traffic = traffic
        self._template = template
        self._route = route
        self._members: list[Member | None] = []
        self._texts: list[str] = []
        self._began: list[float] = []
        self._submitted: Submitted | None = None
        self._is_over = False

    def add(self, member: Member, text: str, began: float) -> None:
        """`begin` has not been called yet. The request came at `began`."""
        self._members.append(member)
        self._texts.append(text)
        self._began.append(began)
        if len(self._texts) == MOST:
            self.begin()

    def begin(self) -> None:
        """Have it computed. Called again, or when all have left, it does nothing."""
        self._close()
        if self._submitted is not None or self._is_over:
            return
        like = self._template.asked.request
        try:
            request = replace(like, texts=tuple(self._texts))
            self._submitted = self._service.submit(request, self._hear)
        except Exception:  # the next way finds it, for each by itself, and says it
            self._submitted = None  # so that it is handed on
        if self._submitted is None:
            self._hand_on()

    def _close(self) -> None:
        """Nobody else may join."""
        if self._template.lot is self:
            self._template.lot = None

    def _hear(self, outcome: EmbedResult | Exception) -> None:
        self._is_over, self._submitted = True, None
        if isinstance(outcome, Exception):
            self._hand_on()
            return
        try:
            bodies = self._template.replies(self._texts, outcome)
            closes = self._service.phase == "draining"
            reply = Head.of(handlers.headers_of(outcome), closes=closes).reply
        except Exception:
            self._hand_on()
            return
        for member, body in zip(self._members, bodies, strict=True):
            if member is not None:
                member.replied(reply(*body))
        here = self._still_here()
        self._count(200, *here)
        self._traffic.leave(len(here))

    def _still_here(self) -> list[int]:
        return [at for at, member in enumerate(self._members) if member is not None]

    def _count(self, status: int, *members: int) -> None:
        now = time.perf_counter()
        seconds = [now - self._began[at] for at in members]
        metrics = self._service.metrics
        metrics.answered(self._template.dialect.NAME, self._route, status, *seconds)

    def _hand_on(self) -> None:
        self._is_over = True
        for member in self._members:
            if member is not None:
                member.handed_on()

    def left(self, member: Member) -> None:
        """Its client has gone; with the last one, the work goes too."""
        if self._is_over or member not in self._members:
            return
        at = self._members.index(member)
        self._members[at] = None
        self._count(CLIENT_LEFT, at)
        self._traffic.leave()
        if not self._still_here():
            self._is_over = True
            self._close()
            submitted, self._submitted = self._submitted, None
            if submitted is not None:
                submitted.cancel()
