"""The settings file (`--config`): TOML, one key a setting.

It gives raw text as flags and environment variables do, so that every setting is parsed in one
place (`config`). It must never know what a setting means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path


def read(location: Path, known: Collection[str]) -> dict[str, str]:
    """The file's values by key. Raises UsageError for a key that is not among `known`."""
    import tomllib

    try:
        table = tomllib.loads(location.read_text(encoding="utf-8"))
    except OSError as why:
        raise UsageError(f"--config: cannot read {location}: {why.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as why:
        raise UsageError(f"--config: {location} is not valid TOML: {why}.") from None
    for key, value in table.items():
        if key not in known:
            raise UsageError(
                f"--config: {location} has an unknown key {key!r}. Known keys: {', '.join(known)}."
            )
        if not isinstance(value, str | int | float | bool):
            raise UsageError(f"--config: {key} in {location} must be a single value.")
    return {key: str(value) for key, value in table.items()}
