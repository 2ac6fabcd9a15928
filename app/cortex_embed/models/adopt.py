"""A model's directory from elsewhere becomes one of the data directory: for machines without a
network, and for models that no catalogue knows.

It must never take a directory's word for being a model of the catalogue: that is what the pins
are for.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cortex_embed.errors import UsageError
from cortex_embed.models.artifact import (
    MANIFEST,
    Artifact,
    fact_of,
    holds_manifest,
    load_artifact,
)
from cortex_embed.models.catalogue import find
from cortex_embed.models.install import Place, plain
from cortex_embed.models.obtain import finish
from cortex_embed.models.repository import Description, describe, needed_files

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.catalogue import CatalogueEntry

_WAY_OUT = "Give it one with --id."


def adopt(
    source: Path, root: Path, *, model_id: str | None = None, own: Path | None = None
) -> Artifact:
    """Copy `source`, an artifact directory or one in Hugging Face's layout, to `root`.

    `own` is a person's own catalogue. Raises ModelFileError, UsageError, OSError.
    """
    given = load_artifact(source) if holds_manifest(source) else _described(source, model_id, own)
    model = plain(model_id or given.spec.id, _WAY_OUT)
    if isinstance(given, Artifact) and model != given.spec.id and find(model, own):
        raise UsageError(f"--id {model} is a model of the catalogue; {source} is another one.")
    place = Place(root, model, given.spec.revision)
    with place.locked(lambda _: None):
        if place.final.exists():
            raise UsageError(
                f"{place.final} is there already. `cortex-embed models remove {model}` removes "
                "it; --id gives the new one another name."
            )
        shutil.rmtree(place.staging, ignore_errors=True)
        place.staging.mkdir(parents=True)
        try:
            if isinstance(given, Artifact):
                return _copied(given, place)
            return _put_in_order(source, given, place)
        finally:
            shutil.rmtree(place.staging, ignore_errors=True)


def _copied(given: Artifact, place: Place) -> Artifact:
    for name in given.files:
        shutil.copyfile(given.directory / name, place.staging / name)
    document = given.manifest | {"id": place.model}
    text = json.dumps(document, indent=2) + "\n"
    (place.staging / MANIFEST).write_text(text, encoding="utf-8")
    load_artifact(place.staging).verify()
    place.publish()
    return load_artifact(place.final)


def _put_in_order(source: Path, described: Description, place: Place) -> Artifact:
    """All files side by side, as the store keeps them, and a manifest."""
    for name, path in needed_files(source, described).items():
        shutil.copyfile(path, place.staging / name)
    facts = {path.name: fact_of(path) for path in place.staging.iterdir()}
    return finish(place, described, facts, {})


def _described(source: Path, model_id: str | None, own: Path | None) -> Description:
    """What the directory says of itself; the catalogue's words where its pins say that it is one.

    Raises UsageError where it has the name of a model of the catalogue, and is another one.
    """
    entry = find(model_id or source.resolve().name, own)
    if entry is None or not entry.onnx:
        said = describe(source)
        return replace(said, spec=replace(said.spec, id=model_id)) if model_id else said
    if wrong := _not_pinned(source, entry):
        raise UsageError(
            f"{source} has the name of {entry.spec.id}, and is not that model: {wrong}. Give it "
            "another name with --id."
        )
    return Description(entry.spec, entry.onnx[0], entry.onnx_precision, entry.alone)


def _not_pinned(source: Path, entry: CatalogueEntry) -> str:
    """How the files differ from the catalogue's; empty if they do not."""
    for file in entry.run_files:
        path = source / file.path
        if not path.is_file():
            return f"it has no {file.path}"
        if not file.sha256:
            return f"nobody has published the hash of {file.path}"
        found = fact_of(path).sha256
        if found != file.sha256:
            return f"{file.path} has SHA-256 {found}, not {file.sha256}"
    return ""
