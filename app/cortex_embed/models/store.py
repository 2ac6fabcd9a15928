"""Where artifact directories are: from a name to the one that it means, or an error that says
where it looked.

It must never serve another model than the named one, never write (`install` does), and never use
the network (`obtain` does).
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError, ModelNotFoundError, NotInstalledError
from cortex_embed.models.artifact import (
    Artifact,
    FileFact,
    holds_manifest,
    load_artifact,
    reason,
)
from cortex_embed.models.catalogue import DEFAULT_MODEL_ID, find, known
from cortex_embed.onefile import start

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cortex_embed.models.catalogue import CatalogueEntry

__all__ = [
    "EMBEDDED_DIR",
    "Artifact",
    "FileFact",
    "data_dir",
    "embedded_dir",
    "installed",
    "load_artifact",
    "locate",
    "open_model",
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


def locate(
    name: str | None = None, model_dir: Path | None = None, catalogue: Path | None = None
) -> Artifact:
    """The artifact that `name` means; None means the default one.

    `name` is a catalogue id, a repository, an alias, or the path of an artifact directory or of
    one in Hugging Face's layout (`./name` where both could be meant). Looks in `model_dir`
    (itself and its children), then at the embedded model, then in the data directory.
    `catalogue` is a person's own.

    Raises ModelNotFoundError for a name that nothing answers to, NotInstalledError for a known
    model that is not on this disk, ModelFileError for one that is malformed. Hashes nothing but
    a directory in Hugging Face's layout, which has no manifest to say what it is.
    """
    _check(model_dir)
    if name is None:
        return _default(model_dir)
    if _is_explicit_path(name):
        return open_model(Path(name).expanduser())
    if found := _search(name, model_dir, catalogue):
        return found
    if entry := find(name, catalogue):
        raise _not_here(entry, model_dir)
    # Last, so that a directory which happens to lie here never shadows a known name.
    if _has_separator(name) or _is_model(Path(name)):
        return open_model(Path(name))
    raise _unknown(name, model_dir, catalogue)


def open_model(directory: Path) -> Artifact:
    """The artifact in `directory`, which may also be in Hugging Face's layout.

    Raises ModelFileError.
    """
    if not holds_manifest(directory) and _is_published(directory):
        from cortex_embed.models.repository import open_directory

        return open_directory(directory)
    return load_artifact(directory)


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
            artifacts.append(open_model(directory))
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
        if directory is not None and _is_model(directory):
            return open_model(directory)
    found = _search(DEFAULT_MODEL_ID, model_dir)
    if found is None:
        entry = find(DEFAULT_MODEL_ID)
        assert entry is not None  # noqa: S101 - a test holds it; this is for mypy
        raise _not_here(entry, model_dir)
    return found


def _search(name: str, model_dir: Path | None, own: Path | None = None) -> Artifact | None:
    for directory in _directories(model_dir):
        try:
            if artifact := _named(directory, name):
                return artifact
        except ModelFileError:
            # A broken neighbour is no reason to refuse an intact model; but a broken model is
            # never passed over in favour of another copy further down.
            if _may_be(directory, name, own):
                raise
    return None


def _named(directory: Path, name: str) -> Artifact | None:
    """The artifact in `directory` if it answers to `name`."""
    if not holds_manifest(directory):
        from cortex_embed.models.repository import describe, open_directory

        wanted = describe(directory).spec.answers_to(name)
        return open_directory(directory) if wanted else None
    artifact = load_artifact(directory)
    return artifact if artifact.spec.answers_to(name) else None


def _may_be(directory: Path, name: str, own: Path | None) -> bool:
    """Whether a directory whose manifest cannot be read was meant to hold model `name`."""
    entry = find(name, own)
    meant = {name.casefold()} | ({entry.spec.id.casefold()} if entry else set())
    return directory.name.casefold() in meant


def _directories(model_dir: Path | None) -> Iterator[Path]:
    """Directories that hold a model, in order of preference."""
    if model_dir is not None:
        yield from _with_children(model_dir, _is_model)
    embedded = embedded_dir()
    if holds_manifest(embedded):
        yield embedded
    yield from _with_children(data_dir(), holds_manifest)


def _is_model(directory: Path) -> bool:
    return holds_manifest(directory) or _is_published(directory)


def _is_published(directory: Path) -> bool:
    """Whether `directory` looks like a model's repository, as its authors publish it."""
    try:
        return (directory / "config.json").is_file()
    except (OSError, ValueError):
        return False


def _with_children(parent: Path, is_model: Callable[[Path], bool]) -> Iterator[Path]:
    if is_model(parent):
        yield parent
    try:
        children = sorted(parent.iterdir()) if parent.is_dir() else []
    except OSError as why:
        raise ModelFileError(
            f"{parent} cannot be listed: {reason(why)}. Make it readable, or name another "
            "directory with --model-dir."
        ) from None
    yield from (child for child in children if is_model(child))


def _has_separator(name: str) -> bool:
    return "/" in name or "\\" in name


def _is_explicit_path(name: str) -> bool:
    return name.startswith(("./", "../", ".\\", "..\\", "~")) or Path(name).is_absolute()


def _looked_in(model_dir: Path | None) -> str:
    places = [model_dir] if model_dir is not None else []
    return ", ".join(str(place) for place in (*places, embedded_dir(), data_dir()))


def _not_here(entry: CatalogueEntry, model_dir: Path | None) -> NotInstalledError:
    model = entry.spec.id
    how = (
        f"It cannot be downloaded: {entry.unavailable}."
        if entry.unavailable
        else f"`cortex-embed models pull {model}` fetches it."
    )
    return NotInstalledError(
        f"Model {model} is not on this machine. Looked in: {_looked_in(model_dir)}. {how} Or name "
        "a directory that holds it with --model-dir.",
        model=model,
    )


def _unknown(name: str, model_dir: Path | None, own: Path | None) -> ModelNotFoundError:
    ids = {entry.spec.id for entry in known(own)}
    for directory in _directories(model_dir):
        with suppress(ModelFileError):
            ids.add(load_artifact(directory).spec.id)
    return ModelNotFoundError(
        f"There is no model named {name!r}. Known models: {', '.join(sorted(ids))}. "
        "For an artifact directory give its path (./name); --catalogue adds models of your own.",
        param="model",
    )
