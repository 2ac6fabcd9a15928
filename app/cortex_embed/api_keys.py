"""The API keys that clients may send: from a file, from the environment, never from a flag.

Flags show in `ps`. What is refused here is named by its place; a key must never get into a
message, a log or a file of ours.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

KEYS_ENV = "CORTEX_EMBED_API_KEYS"
_FILE_BYTES = 2**20


def checked(key: str, source: str) -> str:
    """`key`, which `source` gave. Raises UsageError where no HTTP header could carry it."""
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise UsageError(
            f"{source} has characters that no HTTP header can carry; use letters, digits and signs "
            "of ASCII."
        )
    return key


def from_variable(name: str, value: str | None) -> str:
    """The key that the variable which --token-env names has. Raises UsageError."""
    if not value:
        state = "is not set" if value is None else "is empty"
        raise UsageError(f"--token-env: the variable {name} {state}; put the API token into it.")
    return checked(value, f"--token-env: the token in {name}")


def from_list(listed: str) -> tuple[str, ...]:
    """The keys of CORTEX_EMBED_API_KEYS: separated by commas. Raises UsageError."""
    keys = [key for key in map(str.strip, listed.split(",")) if key]
    if not keys:
        raise UsageError(f"{KEYS_ENV} holds no key; put one into it, or unset it.")
    return tuple(checked(key, f"{KEYS_ENV}: key {n}") for n, key in enumerate(keys, 1))


def from_file(path: Path) -> tuple[str, ...]:
    """The keys of `path`: one a line; empty lines, and those that begin with #, are none.

    Raises UsageError.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_FILE_BYTES + 1)
    except OSError as why:
        raise UsageError(f"--api-key-file: cannot read {path}: {why.strerror}.") from None
    if len(content) > _FILE_BYTES:
        raise UsageError(
            f"--api-key-file: {path} is over {_FILE_BYTES} bytes; is it the right file?"
        )
    # latin-1: any byte is a character then, and a wrong one is refused by its line.
    lines = content.removeprefix(b"\xef\xbb\xbf").decode("latin-1").split("\n")
    keys = [
        checked(line.strip(), f"--api-key-file: line {number} of {path}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not keys:
        raise UsageError(f"--api-key-file: {path} holds no key; put one a line into it.")
    return tuple(keys)


def readable_by_others(path: Path) -> bool:
    """Whether other users of this machine can read `path` (POSIX; elsewhere False)."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return os.name == "posix" and bool(mode & (stat.S_IRGRP | stat.S_IROTH))
