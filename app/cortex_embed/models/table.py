"""Typed reads from a parsed TOML or JSON table: every error names the file and the key.

It exists because the catalogue and the manifests are read at every start, where a schema
library costs more to import than all of this takes to run. It must never know what the
keys mean.
"""

from __future__ import annotations

import re
from typing import Any

from cortex_embed.errors import ModelFileError

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Table:
    """One table of a file; `where` says which, for messages."""

    def __init__(self, data: object, where: str, *, way_out: str) -> None:
        self.where = where
        self.way_out = way_out
        if not isinstance(data, dict):
            raise self._error(f"must be a table of keys and values, not {_kind(data)}")
        self.data: dict[str, Any] = data

    def _error(self, problem: str) -> ModelFileError:
        return ModelFileError(f"{self.where}: {problem}. {self.way_out}")

    def _get(self, key: str, wanted: type | tuple[type, ...], words: str) -> Any:
        if key not in self.data:
            raise self._error(f"the key `{key}` is missing")
        value = self.data[key]
        # bool is an int to Python, not to a file format.
        if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
            raise self._error(f"`{key}` must be {words}, not {_kind(value)}")
        return value

    def text(self, key: str, *, empty: bool = False) -> str:
        value: str = self._get(key, str, "a string")
        if not value and not empty:
            raise self._error(f"`{key}` must not be empty")
        return value

    def choice(self, key: str, options: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in options:
            raise self._error(f"`{key}` is {value!r}, must be one of {', '.join(options)}")
        return value

    def sha256(self, key: str) -> str:
        value = self.text(key)
        if not _SHA256.fullmatch(value):
            raise self._error(f"`{key}` must be 64 lower-case hexadecimal digits, not {value!r}")
        return value

    def whole(self, key: str, *, low: int) -> int:
        value: int = self._get(key, int, "a whole number")
        if value < low:
            raise self._error(f"`{key}` must be at least {low}, not {value}")
        return value

    def number(self, key: str) -> float:
        return float(self._get(key, (int, float), "a number"))

    def flag(self, key: str) -> bool:
        value: bool = self._get(key, bool, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        return tuple(self._list(key, str, "strings"))

    def wholes(self, key: str) -> tuple[int, ...]:
        return tuple(self._list(key, int, "whole numbers"))

    def numbers(self, key: str) -> tuple[float, ...]:
        return tuple(float(value) for value in self._list(key, (int, float), "numbers"))

    def table(self, key: str) -> Table:
        value = self._get(key, dict, "a table")
        return Table(value, f"{self.where}: {key}", way_out=self.way_out)

    def tables(self, key: str) -> list[Table]:
        """The list of tables `key`; empty if it is absent, as TOML writes an empty one."""
        if key not in self.data:
            return []
        value = self._get(key, list, "a list of tables")
        return [
            Table(item, f"{self.where}: {key}[{index}]", way_out=self.way_out)
            for index, item in enumerate(value)
        ]

    def _list(self, key: str, wanted: type | tuple[type, ...], words: str) -> list[Any]:
        value: list[Any] = self._get(key, list, f"a list of {words}")
        for item in value:
            if not isinstance(item, wanted) or isinstance(item, bool):
                raise self._error(f"`{key}` must hold {words} only, not {_kind(item)}")
        return value


def _kind(value: object) -> str:
    names = {dict: "a table", list: "a list", str: "a string", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), repr(value))
