"""How a row of the settings table (`config.Settings`) is written down, and read by others.

It exists so that flags, the environment, the settings file, `--help` and README see one
description of each setting. It must never hold a setting, nor look for a value.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.parsers import boolean, names

if TYPE_CHECKING:
    from collections.abc import Callable

ENV_PREFIX = "CORTEX_EMBED_"
Command = Literal[
    "serve",
    "rpc",
    "embed",
    "selftest",
    "bench",
    "models",
    "pull",
    "ensure",
    "stop",
    "service",
    "fingerprint",
    "doctor",
]


def setting(
    default: Any,
    parse: Callable[[Any], Any],
    metavar: str,
    help: str,  # noqa: A002 - argparse's own word
    *,
    on: tuple[Command, ...] = ("serve",),
    shown: str | None = None,
) -> Any:
    """One row of the table: `shown` is how README and --help print the default."""
    return field(
        default=default,
        metadata={"parse": parse, "metavar": metavar, "help": help, "on": on, "shown": shown},
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as flags, README and parsers see it."""

    name: str
    flag: str
    env: str
    default: Any
    shown: str
    parse: Callable[[Any], Any]
    metavar: str
    help: str
    on: tuple[Command, ...]

    @property
    def is_switch(self) -> bool:
        return self.parse is boolean

    @property
    def is_list(self) -> bool:
        """Whether its flag may be given several times."""
        return self.parse is names


def rows_of(table: type) -> list[Row]:
    """The rows of a dataclass of `setting`s, in the order of declaration."""
    return [
        Row(
            name=f.name,
            flag="--" + f.name.replace("_", "-"),
            env=ENV_PREFIX + f.name.upper(),
            default=f.default,
            shown=f.metadata["shown"] or str(f.default),
            parse=f.metadata["parse"],
            metavar=f.metadata["metavar"],
            help=f.metadata["help"],
            on=f.metadata["on"],
        )
        for f in fields(table)
    ]
