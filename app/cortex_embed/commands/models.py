"""`cortex-embed models`: what can be served, and what is on this machine."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cortex_embed.config import Settings


def list_models(settings: Settings, *, as_json: bool) -> int:
    """Print the catalogue and every artifact found, one line each; the exit code."""
    table = _table(settings)
    if as_json:
        print(json.dumps(table, indent=2))
        return 0
    columns = ("id", "dimensions", "max_tokens", "pooling", "licence", "installed")
    width = {c: max(len(c), *(len(str(row[c] or "-")) for row in table)) for c in columns}
    print("  ".join(c.ljust(width[c]) for c in columns).rstrip())
    for row in table:
        print("  ".join(str(row[c] or "-").ljust(width[c]) for c in columns).rstrip())
    return 0


def _table(settings: Settings) -> list[dict[str, Any]]:
    from cortex_embed.models.catalogue import catalogue
    from cortex_embed.models.store import installed

    found = installed(
        settings.model_dir,
        on_broken=lambda why: print(f"cortex-embed: {why.message}", file=sys.stderr),
    )
    places = {a.spec.id: a for a in reversed(found)}
    specs = {e.spec.id: e.spec for e in catalogue()} | {k: a.spec for k, a in places.items()}
    return [
        {
            "id": spec.id,
            "repo": spec.repo,
            "dimensions": spec.dimensions,
            "max_tokens": spec.max_tokens,
            "pooling": spec.pooling,
            "licence": spec.licence,
            "aliases": list(spec.aliases),
            "installed": str(places[name].directory) if name in places else None,
        }
        for name, spec in specs.items()
    ]
