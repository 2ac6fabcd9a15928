"""Write what is generated: README.md's tables (settings, exit codes, downloads), the events schema.

They are made from the tables and types that the program itself runs on, so they cannot
drift; a test compares them. It must never touch a line of the README outside the markers.
"""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import msgspec

import targets
from cortex_embed import cli
from cortex_embed.commands import sidecar_schema
from cortex_embed.config import rows
from cortex_embed.server.events import EVENTS

README = Path(__file__).resolve().parent.parent / "README.md"
_INTRODUCTION = (
    "What `cortex-embed serve --sidecar` writes to stdout: one JSON object a line. Within a "
    "version (`v`) fields are only ever added; ignore those that you do not know."
)


def settings_table() -> str:
    """One Markdown row a setting."""
    lines = ["| flag | environment | default | meaning |", "|---|---|---|---|"]
    for row in rows():
        flag = row.flag if row.is_switch else f"{row.flag} {row.metavar}"
        lines.append(f"| `{flag}` | `{row.env}` | {row.shown} | {row.help} |")
    return "\n".join(lines)


def exit_codes() -> str:
    """One Markdown row an exit code, from the text that --help prints."""
    found = re.findall(r"^  (\S+)  (.+)$", cli.EXIT_CODES, flags=re.MULTILINE)
    return "\n".join(["| code | meaning |", "|---|---|", *(f"| {c} | {m} |" for c, m in found)])


def generated(readme: str) -> str:
    """`readme` with its blocks made anew. Raises ValueError where a marker is missing."""
    blocks = {
        "settings": settings_table(),
        "exit codes": exit_codes(),
        "downloads": targets.load().downloads(),
    }
    for name, content in blocks.items():
        before, opening, rest = readme.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"\n<!-- /{name} -->")
        if not opening or not closing:
            raise ValueError(f"README.md must have a block marked {name!r}")
        readme = before + opening + content + closing + after
    return readme


def event_schema() -> str:
    """JSON Schema of one line of the sidecar protocol."""
    _, definitions = msgspec.json.schema_components(EVENTS, ref_template="#/$defs/{name}")
    for event in EVENTS:
        definition = definitions[event.__name__]
        # What is left out when it does not apply is never null. The rest is always sent, and
        # msgspec takes a default for a sign that it is not.
        optional = [f.name for f in fields(event) if f.default is None]
        for name in optional:
            (kind,) = (k for k in definition["properties"][name]["anyOf"] if k["type"] != "null")
            definition["properties"][name] = kind
        definition["required"] = [f.name for f in fields(event) if f.name not in optional]
        for one in fields(event):
            if one.default is not MISSING:
                definition["properties"][one.name].pop("default", None)
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cortex-embed sidecar events",
        "description": _INTRODUCTION,
        "oneOf": [{"$ref": f"#/$defs/{event.__name__}"} for event in EVENTS],
        "$defs": {event.__name__: definitions[event.__name__] for event in EVENTS},
    }
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    sidecar_schema.SCHEMA.write_text(event_schema(), encoding="utf-8")
    README.write_text(generated(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"Wrote {sidecar_schema.SCHEMA} and the generated blocks of {README}")
