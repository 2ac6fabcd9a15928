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


def read(
    location: Path, known: Collection[str], *, lists: Collection[str]
) -> dict[str, str | list[str]]:
    """The file's values by key; those of `lists` may be lists of texts.

    Raises UsageError for a key that is not among `known`, too.
    """
    import tomllib

    try:
        table = tomllib.loads(location.read_text(encoding="utf-8"))
    except OSError as why:
        raise UsageError(f"--config: cannot read {location}: {why.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as why:
        raise UsageError(f"--config: {location} is not valid TOML: {why}.") from None
    values: dict[str, str | list[str]] = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(
                f"--config: {location} has an unknown key {key!r}. Known keys: {', '.join(known)}."
            )
        if isinstance(value, str | int | float | bool):
            values[key] = str(value)
        elif key in lists and _is_list_of_texts(value):
            values[key] = value
        else:
            allowed = "a text or a list of texts" if key in lists else "a single value"
            raise UsageError(f"--config: {key} in {location} must be {allowed}.")
    return values


def _is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) for one in value)
