"""Is this line what the packaged schema promises? For every test that sees events.

It knows the few words of JSON Schema that ours uses, and fails on any other.
"""

from __future__ import annotations

import json
from typing import Any

from cortex_embed.commands.sidecar_schema import SCHEMA

_SCHEMA: dict[str, Any] = json.loads(SCHEMA.read_text(encoding="utf-8"))
_TYPES: dict[str, type] = {"string": str, "integer": int}


def checked(line: str) -> dict[str, Any]:
    """The event in `line`, which is exactly of one of the schema's kinds."""
    event: dict[str, Any] = json.loads(line)
    names = [ref["$ref"].removeprefix("#/$defs/") for ref in _SCHEMA["oneOf"]]
    fitting = [name for name in names if _fits(event, _SCHEMA["$defs"][name])]
    assert len(fitting) == 1, f"{line} is {fitting or 'none of the events'}"
    return event


def _fits(event: dict[str, Any], definition: dict[str, Any]) -> bool:
    assert set(definition) <= {"title", "description", "type", "properties", "required"}
    known = definition["properties"]
    return (
        set(definition["required"]) <= set(event)
        # Others are allowed to a host; we send none that are not documented.
        and set(event) <= set(known)
        and all(_is(value, known[name]) for name, value in event.items())
    )


def _is(value: object, kind: dict[str, Any]) -> bool:
    if "enum" in kind:
        return value in kind["enum"]
    assert set(kind) == {"type"}
    return type(value) is _TYPES[kind["type"]]
