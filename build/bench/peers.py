"""Who is compared: `peers.toml` read and checked. It must never know how a peer is run."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_TABLE = Path(__file__).with_name("peers.toml")


@dataclass(frozen=True, slots=True)
class Engine:
    """A library in a worker process."""

    name: str
    env: str
    worker: str
    options: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    reference: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """A server with OpenAI's API; `command` has places in braces, `ready` answers 200 when up.

    `settings` are ours, and only ours has any.
    """

    name: str
    env: str
    command: tuple[str, ...]
    ready: str
    needs: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def is_ours(self) -> bool:
        return bool(self.settings)

    def flags(self) -> list[str]:
        return [f"--{name}={value}" for name, value in self.settings.items()]


def engines(only: Sequence[str] = ()) -> list[Engine]:
    """All engines, or those whose name contains one of `only`; the reference is always there."""
    table = _read("engine")
    made = [Engine(**entry | {"needs": tuple(entry.get("needs", ()))}) for entry in table]
    return [e for e in made if e.reference or _chosen(e.name, only)]


def servers(only: Sequence[str] = ()) -> list[Server]:
    table = _read("server")
    made = [
        Server(
            **entry | {"needs": tuple(entry.get("needs", ())), "command": tuple(entry["command"])}
        )
        for entry in table
    ]
    return [s for s in made if _chosen(s.name, only)]


def _chosen(name: str, only: Sequence[str]) -> bool:
    return not only or any(part.lower() in name.lower() for part in only)


def _read(kind: str) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = tomllib.loads(_TABLE.read_text(encoding="utf-8"))[kind]
    return table
