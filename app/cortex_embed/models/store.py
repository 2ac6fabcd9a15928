"""Where artifact directories are: from a name to the one that it means, or an error that says
where it looked.

It must never serve another model than the named one, never write, and never use the network.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError, ModelNotFoundError
from cortex_embed.models.artifact import (
    Artifact,
    FileFact,
    holds_manifest,
    load_artifact,
    reason,
)
from cortex_embed.models.catalogue import DEFAULT_MODEL_ID, catalogue, find
from cortex_embed.onefile import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "EMBEDDED_DIR",
    "Artifact",
    "FileFact",
    "data_dir",
    "embedded_dir",
    "installed",
    "load_artifact",
    "locate",
]

EMBEDDED_DIR = Path(__file__).resolve().parent.parent / "embedded"
"""The model beside the code: in a checkout, and in the directory form of a bundle."""


def embedded_dir() -> Path:
    """Where the model that travels with us is; a one-file executable unpacks its own."""
    return start.model_dir() or EMBEDDED_DIR


def data_dir() -> Path:
    """Where fetched models live: the platform's data directory (never temp, which is emptied)."""
    import platformdirs

    return Path(platformdirs.user_data_dir("cortex-embed", appauthor=False)) / "models"


def locate(name: str | None = None, model_dir: Path | None = None) -> Artifact:
    """The artifact that `name` means; None means the default one.

    `name` is a catalogue id, a repository, an alias, or the path of an artifact directory
    (`./name` where both could be meant). Looks in `model_dir` (itself and its children), then at
    the embedded model, then in the data directory.

    Raises ModelNotFoundError for a name that nothing answers to, ModelFileError for a known
    model that is not on this disk or whose manifest is malformed. Hashes nothing.
    """
    _check(model_dir)
    if name is None:
        return _default(model_dir)
    if _is_explicit_path(name):
        return load_artifact(Path(name).expanduser())
    if found := _search(name, model_dir):
        return found
    if entry := find(name):
        raise _not_here(entry.spec.id, model_dir)
    # Last, so that a directory which happens to lie here never shadows a known name.
    if _has_separator(name) or holds_manifest(Path(name)):
        return load_artifact(Path(name))
    raise _unknown(name, model_dir)


def installed(
    model_dir: Path | None = None,
    on_broken: Callable[[ModelFileError], None] | None = None,
) -> list[Artifact]:
    """Every artifact directory that `locate` can find by name, in its order of preference.

    A malformed manifest raises ModelFileError, or is given to `on_broken` and left out.
    """
    _check(model_dir)
    artifacts = []
    for directory in _directories(model_dir):
        try:
            artifacts.append(load_artifact(directory))
        except ModelFileError as why:
            if on_broken is None:
                raise
            on_broken(why)
    return artifacts


def _check(model_dir: Path | None) -> None:
    """A directory that is asked for and not there is a slip of the pen, not a wish for another."""
    try:
        if model_dir is None or model_dir.is_dir():
            return
        problem = "is not a directory"
    except OSError as why:
        problem = f"cannot be read: {reason(why)}"
    raise ModelFileError(
        f"--model-dir {model_dir} {problem}. Name an existing directory, or leave it out."
    )


def _default(model_dir: Path | None) -> Artifact:
    for directory in (model_dir, embedded_dir()):
        if directory is not None and holds_manifest(directory):
            return load_artifact(directory)
    found = _search(DEFAULT_MODEL_ID, model_dir)
    if found is None:
        raise _not_here(DEFAULT_MODEL_ID, model_dir)
    return found


def _search(name: str, model_dir: Path | None) -> Artifact | None:
    for directory in _directories(model_dir):
        try:
            artifact = load_artifact(directory)
        except ModelFileError:
            # A broken neighbour is no reason to refuse an intact model; but a broken model is
            # never passed over in favour of another copy further down.
            if _may_be(directory, name):
                raise
            continue
        if artifact.spec.answers_to(name):
            return artifact
    return None


def _may_be(directory: Path, name: str) -> bool:
    """Whether a directory whose manifest cannot be read was meant to hold model `name`."""
    entry = find(name)
    meant = {name.casefold()} | ({entry.spec.id.casefold()} if entry else set())
    return directory.name.casefold() in meant


def _directories(model_dir: Path | None) -> Iterator[Path]:
    """Directories that hold a manifest, in order of preference."""
    if model_dir is not None:
        yield from _with_children(model_dir)
    embedded = embedded_dir()
    if holds_manifest(embedded):
        yield embedded
    yield from _with_children(data_dir())


def _with_children(parent: Path) -> Iterator[Path]:
    if holds_manifest(parent):
        yield parent
    try:
        children = sorted(parent.iterdir()) if parent.is_dir() else []
    except OSError as why:
        raise ModelFileError(
            f"{parent} cannot be listed: {reason(why)}. Make it readable, or name another "
            "directory with --model-dir."
        ) from None
    yield from (child for child in children if holds_manifest(child))


def _has_separator(name: str) -> bool:
    return "/" in name or "\\" in name


def _is_explicit_path(name: str) -> bool:
    return name.startswith(("./", "../", ".\\", "..\\", "~")) or Path(name).is_absolute()


def _looked_in(model_dir: Path | None) -> str:
    places = [model_dir] if model_dir is not None else []
    return ", ".join(str(place) for place in (*places, embedded_dir(), data_dir()))


def _not_here(model_id: str, model_dir: Path | None) -> ModelFileError:
    return ModelFileError(
        f"Model {model_id} is not on this machine. Looked in: {_looked_in(model_dir)}. "
        "Run `nox -s serve` in a source checkout, which makes the default model, or name a "
        "directory that holds an artifact directory with --model-dir."
    )


def _unknown(name: str, model_dir: Path | None) -> ModelNotFoundError:
    known = {entry.spec.id for entry in catalogue()}
    known |= {artifact.spec.id for artifact in installed(model_dir, on_broken=lambda _: None)}
    return ModelNotFoundError(
        f"There is no model named {name!r}. Known models: {', '.join(sorted(known))}. "
        "For an artifact directory give its path (./name).",
        param="model",
    )
