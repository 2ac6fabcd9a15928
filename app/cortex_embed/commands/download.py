"""A model that is asked for and is not on this machine: whether to download it, and doing so.

Every command that embeds goes through here, so that all of them ask the same of the person. It
must never download what is here, nor a model that was not named (or is not the default).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cortex_embed.errors import NotInstalledError, UsageError

if TYPE_CHECKING:
    from cortex_embed.composition import Located
    from cortex_embed.config import Settings
    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.artifact import Artifact
    from cortex_embed.models.catalogue import CatalogueEntry
    from cortex_embed.models.obtain import Report


def here(settings: Settings, report: Report | None = None) -> tuple[Located, ...]:
    """The first model that `settings` name, downloaded if need be; a person is told where no
    `report` is. Raises what `composition.locate_model` raises, and DownloadError."""
    return (_here(report, settings, next(iter(settings.model), None)),)


def all_here(settings: Settings, report: Report) -> tuple[Located, ...]:
    """As `here`, for every model that `settings` name."""
    from cortex_embed.composition import locate_models

    return locate_models(settings, partial(_here, report))


def planned(settings: Settings) -> list[ModelSpec]:
    """What `all_here` will give. Asks nothing of the network; raises what would stop it."""
    from cortex_embed.composition import locate_model

    specs: list[ModelSpec] = []
    for name in settings.model or (None,):
        try:
            spec = locate_model(settings, name).model.spec
        except NotInstalledError as why:
            spec = downloadable(settings, why).spec
        if any(other.answers_to(spec.id) for other in specs):
            raise UsageError(
                f"--model: {spec.id} is named twice; one server serves one model of a name."
            )
        specs.append(spec)
    return specs


def _here(report: Report | None, settings: Settings, name: str | None) -> Located:
    from cortex_embed.composition import locate_model, located

    try:
        return locate_model(settings, name)
    except NotInstalledError as why:
        entry = downloadable(settings, why)
    # Not above: what goes wrong here is no consequence of that error.
    return located(settings, fetch(settings, entry, report))


def downloadable(settings: Settings, missing: NotInstalledError) -> CatalogueEntry:
    """The entry to download for what is `missing`. Asks nothing of the network.

    Raises DownloadError where the entry forbids it, UsageError for a precision that it has not.
    """
    from cortex_embed.models.catalogue import find
    from cortex_embed.models.obtain import permit

    entry = find(missing.model, settings.catalogue)
    if entry is None:  # known to the store, whose catalogue is this one
        raise missing
    permit(entry, accept_terms=settings.accept_terms)
    if settings.precision not in {None, "auto", entry.onnx_precision}:
        raise UsageError(
            f"--precision {settings.precision}: {entry.spec.id} is published in "
            f"{entry.onnx_precision}. Leave the precision out."
        )
    return entry


def fetch(settings: Settings, entry: CatalogueEntry, report: Report | None = None) -> Artifact:
    """The artifact of `entry` in the data directory, verified. Raises DownloadError."""
    from cortex_embed.models.obtain import obtain
    from cortex_embed.models.store import data_dir

    def run(report: Report) -> Artifact:
        return obtain(
            entry,
            data_dir(),
            offline=settings.offline,
            stall_timeout=settings.stall_timeout,
            accept_terms=settings.accept_terms,
            report=report,
        )

    if report is not None:
        return run(report)
    from cortex_embed.logs import Reporter

    person = Reporter()
    try:
        return run(person)
    finally:
        person.downloaded()
