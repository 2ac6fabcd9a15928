"""From settings and artifacts to the pool of models that a service embeds with.

It exists so that `service` need not know what a provider is made of, or how several models share
one process. It must never locate a model, nor load one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cortex_embed.providers.pool import Candidate, ModelPool

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.config import Settings
    from cortex_embed.domain import Provider
    from cortex_embed.models.artifact import Artifact


def pool_of(settings: Settings, models: Sequence[tuple[Artifact, str]]) -> ModelPool:
    """The pool of `models`, each in a precision, the default first.

    Alone, a model has all of --max-memory to itself; several share it. Raises UsageError where
    they cannot.
    """
    if len(models) == 1:
        make = partial(_local, settings, *models[0], max_memory=settings.max_memory)
        return ModelPool([Candidate(models[0][0].spec.id, make)])
    from cortex_embed.providers import memory

    bound, share = memory.shared(models, settings.max_memory, settings.max_models_memory)
    candidates = []
    for artifact, precision in models:
        size = memory.footprint(artifact, precision)
        make = partial(_local, settings, artifact, precision, run_memory=share)
        candidates.append(Candidate(artifact.spec.id, make, size.loaded, size.loading))
    return ModelPool(candidates, max_memory=bound, idle=settings.model_idle)


def _local(
    settings: Settings,
    artifact: Artifact,
    precision: str,
    *,
    max_memory: int = 0,
    run_memory: int = 0,
) -> Provider:
    from cortex_embed.providers.cores import available_cores
    from cortex_embed.providers.local import LocalProvider

    return LocalProvider(
        artifact,
        precision=precision,
        threads=settings.threads or available_cores(),
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        max_memory=max_memory,
        run_memory=run_memory,
    )
