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
    from cortex_embed.metrics import Metrics
    from cortex_embed.models.artifact import Artifact


def pool_of(
    settings: Settings, models: Sequence[tuple[Artifact | None, str]], metrics: Metrics
) -> ModelPool:
    """The pool of `models`, each in a precision, the default first; all count in `metrics`.

    None stands for the model that has no files (`hashing`). Alone, a model has all of
    --max-memory to itself; several share it. Raises UsageError where they cannot.
    """
    with_files = [(artifact, precision) for artifact, precision in models if artifact is not None]
    local = partial(_local, settings, metrics)
    if len(models) == 1:
        artifact, precision = models[0]
        if artifact is None:
            return ModelPool([_hash()])
        make = partial(local, artifact, precision, max_memory=settings.max_memory)
        return ModelPool([Candidate(artifact.spec.id, make)])
    from cortex_embed.providers import memory

    bound, share = memory.shared(with_files, settings.max_memory, settings.max_models_memory)
    candidates = []
    for artifact, precision in models:
        if artifact is None:
            candidates.append(_hash())
            continue
        size = memory.footprint(artifact, precision, states=artifact is models[0][0])
        make = partial(local, artifact, precision, run_memory=share)
        candidates.append(Candidate(artifact.spec.id, make, size.loaded, size.loading))
    return ModelPool(candidates, max_memory=bound, idle=settings.model_idle)


def _hash() -> Candidate:
    from cortex_embed.providers import hashing

    return Candidate(hashing.SPEC.id, hashing.HashingProvider)


def _local(
    settings: Settings,
    metrics: Metrics,
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
        max_request_tokens=settings.max_request_tokens,
        metrics=metrics,
    )
