"""`cortex-embed models list | info | path | verify`: what there is, where, and whether it is whole.

It must never change anything on the disk, nor reach for the network.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import ModelFileError, ModelNotFoundError, NotInstalledError

if TYPE_CHECKING:
    from cortex_embed.config import Settings
    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.artifact import Artifact
    from cortex_embed.models.catalogue import CatalogueEntry

_COLUMNS = (
    "id", "dimensions", "max_tokens", "pooling", "licence", "download", "graph", "installed"
)  # fmt: skip


def list_models(settings: Settings, *, as_json: bool) -> int:
    """Print the catalogue and every model found, one line each; the exit code."""
    rows = _rows(settings)
    if as_json:
        print(json.dumps(rows, indent=2))
        return 0
    shown = [{c: _cell(c, row[c]) for c in _COLUMNS} for row in rows]
    width = {c: max(len(c), *(len(row[c]) for row in shown)) for c in _COLUMNS}
    for row in [{c: c for c in _COLUMNS}, *shown]:
        print("  ".join(row[c].ljust(width[c]) for c in _COLUMNS).rstrip())
    for row in rows:
        for about in ("terms", "unavailable"):
            if row[about]:
                print(f"{row['id']}: {about}: {row[about]}")
    return 0


def info(settings: Settings, name: str, *, as_json: bool) -> int:
    """Print everything that is known of one model; the exit code. Raises ModelNotFoundError."""
    from cortex_embed.models.catalogue import find
    from cortex_embed.models.store import locate

    entry = find(name, settings.catalogue)
    try:
        artifact = locate(name, settings.model_dir, settings.catalogue)
    except NotInstalledError:
        artifact = None
    known = _known(entry, artifact)
    if as_json:
        print(json.dumps(known, indent=2))
        return 0
    width = max(map(len, known))
    for key, value in known.items():
        print(f"{key.ljust(width)}  {_words(value)}")
    return 0


def path(settings: Settings, name: str) -> int:
    """Print the directory of an installed model; the exit code. Raises ModelFileError."""
    from cortex_embed.models.store import locate

    print(locate(name, settings.model_dir, settings.catalogue).directory)
    return 0


def verify(settings: Settings, name: str | None) -> int:
    """Hash every file of one installed model, or of all; 3 if one is not what it should be.

    Raises ModelNotFoundError, NotInstalledError.
    """
    from cortex_embed.models.store import installed, locate

    broken: list[ModelFileError] = []
    if name is not None:
        artifacts = [locate(name, settings.model_dir, settings.catalogue)]
    else:
        artifacts = installed(settings.model_dir, on_broken=broken.append)
    for artifact in artifacts:
        try:
            artifact.verify()
            _compare_with_pins(settings, artifact)
            size = sum(fact.size for fact in artifact.files.values())
            print(f"{artifact.spec.id}: {size / 1e6:,.1f} MB intact in {artifact.directory}")
        except ModelFileError as why:
            broken.append(why)
    for one in broken:
        print(f"cortex-embed: {one.message}", file=sys.stderr)
    if broken:
        print("`cortex-embed models pull NAME` mends what the catalogue knows.", file=sys.stderr)
    return ModelFileError.exit_code if broken else 0


def _compare_with_pins(settings: Settings, artifact: Artifact) -> None:
    """A manifest vouches for its files; the catalogue vouches for the manifest."""
    from cortex_embed.models.catalogue import find

    entry = find(artifact.spec.id, settings.catalogue)
    if entry is None or entry.spec.revision != artifact.spec.revision:
        return
    for file in entry.files:
        found = artifact.sources.get(file.path)
        if file.sha256 and found and found != file.sha256:
            raise ModelFileError(
                f"{artifact.directory}: {file.path} has SHA-256 {found}, the catalogue says "
                f"{file.sha256}: it is not this model's."
            )


def _rows(settings: Settings) -> list[dict[str, Any]]:
    from cortex_embed.models.catalogue import known
    from cortex_embed.models.store import installed

    found = installed(
        settings.model_dir,
        on_broken=lambda why: print(f"cortex-embed: {why.message}", file=sys.stderr),
    )
    artifacts = {a.spec.id: a for a in reversed(found)}
    entries = {entry.spec.id: entry for entry in known(settings.catalogue)}
    return [_known(entries.get(name), artifacts.get(name)) for name in {**entries, **artifacts}]


def _known(entry: CatalogueEntry | None, artifact: Artifact | None) -> dict[str, Any]:
    """One model for programs; what is installed says more truly what will be served."""
    spec = artifact.spec if artifact else entry.spec if entry else None
    if spec is None:
        raise ModelNotFoundError("There is no such model.", param="model")
    graph, why = _graph(entry, artifact)
    facts: dict[str, Any] = {
        **_identity(spec),
        "download": entry.download_bytes if entry and entry.onnx and entry.is_sized else None,
        "terms": entry.terms if entry else "",
        "unavailable": entry.unavailable if entry else "",
        "remark": entry.remark if entry else "",
        "pinned": entry.is_pinned if entry else None,
        "graph": graph,
        "graph_because": why,
        "installed": str(artifact.directory) if artifact else None,
        "precisions": list(artifact.precisions) if artifact else [],
        "fingerprints": _fingerprints(artifact) if artifact else {},
    }
    return facts


def _identity(spec: ModelSpec) -> dict[str, Any]:
    return {
        "id": spec.id,
        "repo": spec.repo,
        "revision": spec.revision,
        "aliases": list(spec.aliases),
        "dimensions": spec.dimensions,
        "matryoshka": list(spec.matryoshka),
        "max_tokens": spec.max_tokens,
        "pooling": spec.pooling,
        "normalize": spec.normalize,
        "query_prefix": spec.query_prefix,
        "document_prefix": spec.document_prefix,
        "licence": spec.licence,
    }


def _graph(entry: CatalogueEntry | None, artifact: Artifact | None) -> tuple[str | None, str]:
    """Which graph is run, and why that one."""
    if artifact is not None and artifact.is_own:
        return "our export", "made by our exporter from the authors' weights"
    if artifact is not None:
        return artifact.graphs[0].file, "published in the model's repository, run as it is"
    if entry is not None and entry.onnx:
        return entry.onnx[0], "published in the model's repository, run as it is once pulled"
    return None, "there is no graph to download"


def _fingerprints(artifact: Artifact) -> dict[str, str]:
    from cortex_embed.models.fingerprint import fingerprint

    return {precision: fingerprint(artifact, precision) for precision in artifact.precisions}


def _cell(column: str, value: Any) -> str:
    if column == "download" and value:
        return f"{value / 1e6:,.1f} MB"
    return str(value or "-")


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {v}" for k, v in value.items()) or "-"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return repr(value) if str(value) != str(value).strip() else str(value or "-")
