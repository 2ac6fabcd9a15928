"""From a setting's raw text to its value: sizes, durations, choices.

Every parser raises ValueError with the end of a sentence that begins with the raw text; who
calls says where that came from. It must never read a file or the environment.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_ORIGIN = r"([a-z][a-z0-9+.-]*)://(?:\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::\d{1,5})?"
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def text(raw: str) -> str:
    if not raw.strip():
        raise ValueError("must not be empty")
    return raw


def names(raw: str | list[str]) -> tuple[str, ...]:
    """One text or more: a string is split at commas, what is a list already is not."""
    return tuple(text(one).strip() for one in (raw.split(",") if isinstance(raw, str) else raw))


def path(raw: str) -> Path:
    return Path(text(raw)).expanduser()


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers in [low, high]."""

    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return parse


def size(raw: str) -> int:
    """Bytes: `33554432`, `32MiB`, `10MB`. At least 1 KiB."""
    found = re.fullmatch(r"(\d+)\s*([kmg]i?)?b?", raw.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("must be a size such as 32MiB")
    value = int(found[1]) * _UNITS[(found[2] or "").lower()]
    if not 1024 <= value <= 2**40:
        raise ValueError("must be from 1KiB to 1024GiB")
    return value


def size_or_none(raw: str) -> int:
    """Bytes as `size` reads them, or 0."""
    return 0 if raw.strip() == "0" else size(raw)


def duration(raw: str) -> float:
    """Seconds: `30`, `30s`, `15m`, `500ms`. From 0 to 24 hours."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?", raw.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("must be a duration such as 30s or 15m")
    value = float(found[1]) * _SECONDS[(found[2] or "").lower()]
    if value > 86_400:
        raise ValueError("must be at most 24h")
    return value


def origins(raw: str) -> tuple[str, ...]:
    """Origins of web pages, as browsers send them: `https://app.example,http://localhost:3000`.

    `*` stands for all. The default port of a scheme is left out, as browsers do.
    """
    found = []
    for one in map(str.strip, raw.split(",")):
        match = re.fullmatch(_ORIGIN, one.lower())
        if one != "*" and not match:
            raise ValueError(
                "must be * or origins such as https://app.example:8443, separated by commas: "
                "scheme, host and port, no path"
            )
        found.append(one.lower().removesuffix(_DEFAULT_PORTS.get(match[1], " ")) if match else one)
    return tuple(dict.fromkeys(found))


def boolean(raw: str) -> bool:
    lowered = raw.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def choice(*options: str) -> Callable[[str], str]:
    """A parser that takes only `options`."""

    def parse(raw: str) -> str:
        if raw not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return raw

    return parse
