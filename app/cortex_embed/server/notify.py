"""Start and stop as a service manager follows them: systemd's notification protocol, sd_notify(3).

One datagram a report, to the socket that NOTIFY_SOCKET names: systemd then knows when requests
are served (Type=notify), and `systemctl status` shows what the start is at. It must never keep
the server from serving: what cannot be sent is said once, and dropped.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.errors import EmbedError
    from cortex_embed.models.obtain import Progress
    from cortex_embed.server.reporter import StopReason
    from cortex_embed.server.sockets import Listener
    from cortex_embed.service import ServedModel


class ManagerReporter:
    """Tells the manager at `address`. Implements `reporter.Reporter`.

    `say` gets a line where it cannot be told.
    """

    def __init__(self, address: str, say: Callable[[str], None]) -> None:
        # An abstract name begins with NUL, which no environment variable can hold.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._shown = address
        self._say: Callable[[str], None] | None = say
        self._url = ""

    def _send(self, status: str, *more: str) -> None:
        line = "STATUS=" + " ".join(status.split())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
                out.setblocking(False)  # this is the event loop's thread
                out.sendto("\n".join([*more, line]).encode(), self._address)
        except (OSError, ValueError) as why:  # ValueError: a name that no socket can have
            if self._say is not None:
                self._say(
                    f"The service manager cannot be told (NOTIFY_SOCKET={self._shown}): {why}"
                )
                self._say = None

    def listening(self, listener: Listener, token: str | None, *, keyed: bool = False) -> None:
        del token, keyed
        self._url = str(listener.uds or listener.url)
        self._send(f"Starting on {self._url}")

    def said(self, line: str) -> None:
        """For people only."""

    def progressed(self, progress: Progress) -> None:
        done, total = progress.done / 1e6, progress.total / 1e6
        self._send(f"Getting {progress.model}: {done:,.1f} of {total:,.1f} MB ({progress.phase})")

    def loading(self, model: ServedModel) -> None:
        self._send(f"Loading {model.spec.id}")

    def ready(self, model: ServedModel, seconds: float) -> None:
        del seconds
        self._send(f"Serving {model.spec.id} on {self._url}", "READY=1")

    def draining(self, in_flight: int, reason: StopReason) -> None:
        del reason
        self._send(f"Stopping: finishing {in_flight} request(s)", "STOPPING=1")

    def stopped(self) -> None:
        """The end of the process says so."""

    def failed(self, error: EmbedError) -> None:
        self._send(f"Failed: {error.message}")
