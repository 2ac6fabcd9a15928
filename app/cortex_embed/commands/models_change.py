"""`cortex-embed models pull | import | remove`: what is in the data directory changes.

It must never touch the model that travels with the program, nor a person's own --model-dir.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError, ModelNotFoundError, UsageError

if TYPE_CHECKING:
    from cortex_embed.config import Settings
    from cortex_embed.models.artifact import Artifact
    from cortex_embed.models.install import Place


def pull(settings: Settings, name: str) -> int:
    """Download a model of the catalogue, or mend it; the exit code. Raises DownloadError."""
    from cortex_embed.commands import download
    from cortex_embed.models.catalogue import find
    from cortex_embed.models.obtain import permit
    from cortex_embed.models.store import data_dir

    found = _found(settings, name)
    entry = find(name, settings.catalogue)
    if entry is None or (found is not None and found.directory.parent != data_dir()):
        if found is None:
            raise ModelNotFoundError(f"There is no model named {name!r} in the catalogue.")
        found.verify()
        print(f"{found.spec.id} is here already: {found.directory}")
        return 0
    if found is None:
        permit(entry, accept_terms=settings.accept_terms)
    artifact = download.fetch(settings, entry)
    print(f"{artifact.spec.id} is in {artifact.directory}, verified.")
    return 0


def import_model(settings: Settings, source: Path, model_id: str | None) -> int:
    """Copy a model's directory into the data directory; the exit code.

    Raises ModelFileError for what is no model, UsageError for an id that is taken.
    """
    from cortex_embed.models import faults
    from cortex_embed.models.adopt import adopt
    from cortex_embed.models.store import data_dir

    try:
        artifact = adopt(source, data_dir(), model_id=model_id, own=settings.catalogue)
    except OSError as why:
        raise faults.of_disk(why, data_dir()) from None
    print(f"{artifact.spec.id} is in {artifact.directory}, verified.")
    return 0


def remove(settings: Settings, name: str) -> int:
    """Remove a model from the data directory, and say what that freed; the exit code."""
    from cortex_embed.models import faults
    from cortex_embed.models.store import data_dir

    place = _place(settings, name)
    try:
        with place.locked(lambda who: print(f"{place.model} is in use by {who}: waiting.")):
            freed = place.remove()
    except OSError as why:
        raise faults.of_disk(why, data_dir()) from None
    print(f"Removed {place.model}: {freed / 1e6:,.1f} MB freed.")
    return 0


def _found(settings: Settings, name: str) -> Artifact | None:
    """The installed model, unless it is missing or damaged."""
    from cortex_embed.models.store import locate

    try:
        return locate(name, settings.model_dir, settings.catalogue)
    except (ModelFileError, ModelNotFoundError):
        return None


def _place(settings: Settings, name: str) -> Place:
    """What `name` means in the data directory. Raises UsageError where it is elsewhere only."""
    from cortex_embed.models.catalogue import find
    from cortex_embed.models.install import Place
    from cortex_embed.models.store import data_dir, installed

    root = data_dir()
    for artifact in installed(on_broken=lambda _: None):
        if artifact.directory.parent == root and artifact.spec.answers_to(name):
            return Place(root, artifact.directory.name, artifact.spec.revision)
    entry = find(name, settings.catalogue)
    model = entry.spec.id if entry else name
    place = Place(root, model, entry.spec.revision if entry else "")
    # Damaged, or not finished.
    if Path(model).name == model and (place.final.is_dir() or place.staged()):
        return place
    found = _found(settings, name)
    if found is None:
        raise ModelNotFoundError(f"There is no model named {name!r} in {root}.")
    raise UsageError(
        f"{found.spec.id} is in {found.directory}, which is not ours to remove; only what lies in "
        f"{root} is."
    )
