"""The sidecar protocol, version 1: what a host program is told, one JSON object a line.

The dataclasses below are the protocol's one source: `nox -s docs` makes
`sidecar.schema.json` from them. A field is never removed nor its meaning changed within a
version; new ones may come. It must never import anything that costs (`listening` is sent
before aiohttp is loaded), and a token must never get from here into a log.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed import __version__
from cortex_embed.errors import OutputError
from cortex_embed.server.reporter import StopReason  # noqa: TC001 - the schema is made from it

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cortex_embed.errors import EmbedError
    from cortex_embed.outlet import Outlet
    from cortex_embed.server.sockets import Listener
    from cortex_embed.service import ServedModel

# How long the last event may take to get through a pipe that is full.
_LAST_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """The port is bound: connections are accepted, the model is loading."""

    event: Literal["listening"] = "listening"
    v: Literal[1] = 1
    url: str
    """Base of every route; on a Unix socket, what to put in its place in a URL."""
    host: str
    port: int
    """0 on a Unix socket."""
    pid: int
    """The process that serves."""
    version: str
    token: str | None = None
    """For `Authorization: Bearer`; left out where this launch has none of its own."""
    uds: str | None = None
    """The Unix socket, where it listens on one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the time until `ready` is spent on."""

    event: Literal["progress"] = "progress"
    v: Literal[1] = 1
    phase: Literal["download", "load"]
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """Requests are served."""

    event: Literal["ready"] = "ready"
    v: Literal[1] = 1
    url: str
    host: str
    port: int
    pid: int
    version: str
    token: str | None = None
    uds: str | None = None
    model: str
    dimensions: int
    max_tokens: int
    precision: str
    fingerprint: str | None = None
    """Identity of the vector space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Error:
    """The process did not start; it ends with `exit_code`."""

    event: Literal["error"] = "error"
    v: Literal[1] = 1
    code: str
    message: str
    exit_code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining:
    """No new work is taken; what is in flight is finished."""

    event: Literal["draining"] = "draining"
    v: Literal[1] = 1
    in_flight: int
    reason: StopReason


EVENTS = (Listening, Progress, Ready, Error, Draining)
Event = Listening | Progress | Ready | Error | Draining


def encode(event: Event) -> str:
    """One line. Fields that do not apply are left out."""
    values = {f.name: getattr(event, f.name) for f in fields(event)}
    return json.dumps({k: v for k, v in values.items() if v is not None}) + "\n"


class HostReporter:
    """Start and stop as a host program follows them. Implements `reporter.Reporter`."""

    def __init__(self, outlets: Sequence[Outlet]) -> None:
        self._outlets = outlets
        self.ready_file: ReadyFile | None = None
        """Set where --ready-file asks for one."""
        self._reach: dict[str, Any] = {}

    def _send(self, event: Event) -> None:
        line = encode(event)
        for outlet in self._outlets:
            outlet.write(line)

    def _settle(self) -> None:
        for outlet in self._outlets:
            outlet.settle(_LAST_SECONDS)

    def listening(self, listener: Listener, token: str | None, *, keyed: bool = False) -> None:
        del keyed  # the keys of --api-key-file are not ours to tell
        self._reach = {
            "url": listener.url,
            "host": listener.host,
            "port": listener.port,
            "pid": os.getpid(),
            "version": __version__,
            "token": token,
            "uds": str(listener.uds) if listener.uds else None,
        }
        self._send(Listening(**self._reach))
        # The imports that come next keep the writing thread from running.
        for outlet in self._outlets:
            outlet.settle(0.01)

    def loading(self, model: ServedModel) -> None:
        self._send(Progress(phase="load", model=model.spec.id))

    def ready(self, model: ServedModel, seconds: float) -> None:
        """Raises OutputError when the ready file cannot be written."""
        del seconds
        spec = model.spec
        event = Ready(
            **self._reach,
            model=spec.id,
            dimensions=spec.dimensions,
            max_tokens=spec.max_tokens,
            precision=str(model.facts.get("precision", "fp32")),
            fingerprint=model.fingerprint or None,
        )
        if self.ready_file is not None:
            self.ready_file.write(encode(event))
        self._send(event)

    def draining(self, in_flight: int, reason: StopReason) -> None:
        if self.ready_file is not None:
            self.ready_file.remove()
        self._send(Draining(in_flight=in_flight, reason=reason))

    def stopped(self) -> None:
        self._settle()

    def failed(self, error: EmbedError) -> None:
        if self.ready_file is not None:
            self.ready_file.remove()
        self._send(Error(code=error.code, message=error.message, exit_code=error.exit_code))
        self._settle()


class ReadyFile:
    """`path` holds the ready event for as long as requests are served, and nobody else reads it.

    It appears whole. What an earlier, killed server left there is removed at once, so that
    whoever waits for the file never reads of the dead.
    """

    def __init__(self, path: Path) -> None:
        """Raises OutputError where no file can be made."""
        self._path = path.absolute()
        self._part = self._path.with_name(f"{self._path.name}.{os.getpid()}.part")
        self._written = b""
        try:
            self._path.unlink(missing_ok=True)
            self._make(b"")
            self._part.unlink()
        except OSError as why:
            raise self._refused(why) from None

    def write(self, line: str) -> None:
        """Raises OutputError."""
        self._written = line.encode()
        try:
            self._make(self._written)
            self._part.replace(self._path)
        except OSError as why:
            with suppress(OSError):
                self._part.unlink()
            raise self._refused(why) from None

    def remove(self) -> None:
        """Remove the file if it is the one that was written here."""
        with suppress(OSError):
            if self._written and self._path.read_bytes() == self._written:
                self._path.unlink()

    def _make(self, content: bytes) -> None:
        with suppress(FileNotFoundError):  # of a killed process that had our number
            self._part.unlink()
        made = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(made, "wb") as file:
            file.write(content)

    def _refused(self, why: OSError) -> OutputError:
        reason = why.strerror or str(why)
        return OutputError(
            f"--ready-file {self._path} cannot be written: {reason}; name a file in a directory "
            "that exists and is writable"
        )
