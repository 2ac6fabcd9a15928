"""The shortest way: for a request that is like an answered one but for its text.

A client's bodies are alike, as its heads are: what stands around the text says the same every
time, and need not be decoded again. Nor is there a task to wait in: the reply is written where the
engine's outcome is heard. For one short text that is half of what the event loop has to do
(`nox -s http`). It must never take a body for like another that is not, byte for byte around its
text, and it leaves the ways of failing to others: `fast_path` has those.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from cortex_embed.server.middleware import CLIENT_LEFT
from cortex_embed.wire.dialect import Asked

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.domain import EmbedResult, Submitted
    from cortex_embed.server.fast_path import FastPath
    from cortex_embed.server.handlers import Choose
    from cortex_embed.wire.dialect import ErrorDialect, ServerDialect


_TEMPLATES = 4
"""A program asks in few ways: for queries, for documents."""


class Template(NamedTuple):
    """A body in which one text may be another: the bytes up to its opening quotation mark and from
    its closing one on, and what it asked for, in the words of `speaker`."""

    before: bytes
    after: bytes
    asked: Asked
    speaker: ServerDialect
    dialect: ErrorDialect
    """Whose words it used, where the path is shared."""

    @classmethod
    def of(cls, body: bytes, asked: Asked, speaker: ServerDialect) -> Template | None:
        """None for a body with more than one text, or where its text stands is not certain."""
        texts = asked.request.texts
        if len(texts) != 1 or not isinstance(texts[0], str):
            return None
        # Without a backslash every string stands as it is; what stands there once is no other
        # field's value, and no piece of the syntax.
        quoted = f'"{texts[0]}"'.encode()
        at = body.find(quoted)
        if at < 0 or at != body.rfind(quoted) or b"\\" in body:
            return None
        end = at + len(quoted) - 1
        return cls(body[: at + 1], body[end:], asked, speaker, asked.dialect or speaker)

    def text_of(self, body: bytes) -> str | None:
        """The text of `body` if that is like this one; None if it is not, or not plainly so."""
        before, after = self.before, self.after
        if not body.startswith(before) or not body.endswith(after):
            return None
        inner = body[len(before) : len(body) - len(after)]
        if b'"' in inner or b"\\" in inner:
            return None
        try:
            text = inner.decode()
        except UnicodeDecodeError:
            return None
        return text if text and text.isprintable() else None  # JSON has no bare control character

    def with_text(self, text: str) -> Asked:
        """What a body like this one asks for."""
        asked = self.asked
        request = replace(asked.request, texts=(text,))
        return Asked(request, asked.encoding, asked.dtypes, asked.user, asked.dialect)


class Known:
    """What follows from a head, and the bodies that came with it, the newest first."""

    __slots__ = ("by_openai", "choose", "route", "templates")

    def __init__(self, choose: Choose, route: str, *, by_openai: bool) -> None:
        self.choose = choose
        self.route = route
        self.by_openai = by_openai
        self.templates: tuple[Template, ...] = ()

    def learn(self, template: Template | None) -> None:
        if template is not None:
            self.templates = (template, *self.templates[: _TEMPLATES - 1])


class Failure(NamedTuple):
    """Why the short way has no answer: for the whole way to say, in this dialect."""

    why: Exception
    dialect: ErrorDialect | None


class Direct:
    """One request on the shortest way. It has a connection to itself, as a task would.

    `answered` is told once how it ended: True, or why there is no reply.
    """

    __slots__ = ("_answered", "_asked", "_began", "_fast", "_known", "_send", "_submitted", "_work")

    def __init__(
        self,
        fast: FastPath,
        known: Known,
        template: Template,
        text: str,
        send: Callable[[bytes], None],
        answered: Callable[[bool | Failure], None],
    ) -> None:
        self._began = time.perf_counter()
        self._fast = fast
        self._known = known
        self._work: Template | None = template
        self._asked = template.with_text(text)
        self._send = send
        self._answered = answered
        self._submitted: Submitted | None = None

    def begin(self) -> bool:
        """Whether it is under way. Raises what is wrong with it."""
        fast = self._fast
        self._submitted = fast.service.submit(self._asked.request, self._hear)
        if self._submitted is None:
            return False
        fast.traffic.requests.enter()
        fast.traffic.uses.enter()
        return True

    def _hear(self, outcome: EmbedResult | Exception) -> None:
        template, self._work = self._work, None
        if template is None:
            return
        fast = self._fast
        found: bool | Failure = True
        try:
            if isinstance(outcome, Exception):
                raise outcome
            self._send(fast.reply(template.speaker, self._asked, outcome))
            fast.count(template.dialect, self._known, 200, self._began)
        except Exception as why:  # whatever it is, the whole way says it
            found = Failure(why, template.dialect)
        self._leave()
        self._answered(found)

    def cancel(self) -> None:
        """The client has left."""
        template, self._work = self._work, None
        if template is None or self._submitted is None:
            return
        self._submitted.cancel()
        self._fast.count(template.dialect, self._known, CLIENT_LEFT, self._began)
        self._leave()

    def _leave(self) -> None:
        traffic = self._fast.traffic
        traffic.uses.leave()
        traffic.requests.leave()
