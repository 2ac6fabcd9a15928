"""Who is told how far the server is: a person (`logs.Reporter`), a host program (`events`).

It exists so that the server speaks to one reporter and knows neither. It must never hold a
wording or a format, and costs nothing to import: the first report comes before aiohttp.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol, get_args

if TYPE_CHECKING:
    from cortex_embed.errors import EmbedError
    from cortex_embed.server.sockets import Listener
    from cortex_embed.service import ServedModel

StopReason = Literal["signal", "parent", "stdin", "idle", "request"]
STOP_REASONS: tuple[StopReason, ...] = get_args(StopReason)


class Reporter(Protocol):
    """Every method returns at once, whatever the listener at the other end does."""

    def listening(self, listener: Listener, token: str | None, *, keyed: bool = False) -> None:
        """The port is bound; the model is not loaded yet.

        `token` is the key of this launch, if there is one; `keyed`: API keys open it as well.
        """

    def loading(self, model: ServedModel) -> None: ...

    def ready(self, model: ServedModel, seconds: float) -> None:
        """Requests are served. `seconds` is how long the model took to load."""

    def draining(self, in_flight: int, reason: StopReason) -> None: ...

    def stopped(self) -> None: ...

    def failed(self, error: EmbedError) -> None:
        """The process ends with `error.exit_code`."""


class Together:
    """Several reporters as one."""

    def __init__(self, *reporters: Reporter) -> None:
        self._reporters = reporters

    def listening(self, listener: Listener, token: str | None, *, keyed: bool = False) -> None:
        for one in self._reporters:
            one.listening(listener, token, keyed=keyed)

    def loading(self, model: ServedModel) -> None:
        for one in self._reporters:
            one.loading(model)

    def ready(self, model: ServedModel, seconds: float) -> None:
        for one in self._reporters:
            one.ready(model, seconds)

    def draining(self, in_flight: int, reason: StopReason) -> None:
        for one in self._reporters:
            one.draining(in_flight, reason)

    def stopped(self) -> None:
        for one in self._reporters:
            one.stopped()

    def failed(self, error: EmbedError) -> None:
        for one in self._reporters:
            one.failed(error)
