"""`cortex-embed sidecar-schema`: the events of `serve --sidecar`, for machines.

It prints the file that travels with the program and must never make one: what is printed is
what was tested.
"""

from __future__ import annotations

from pathlib import Path

SCHEMA = Path(__file__).resolve().parent.parent / "server" / "sidecar.schema.json"


def run() -> int:
    """Print the JSON Schema; the exit code."""
    print(SCHEMA.read_text(encoding="utf-8"), end="")
    return 0
