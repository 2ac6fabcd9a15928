"""From settings and artifacts to the pool of models that a service embeds with.

It exists so that `service` need not know what a provider is made of, or how several models share
one process. It must never locate a model, nor load one.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cortex_embed.providers.pool import Candidate, ModelPool

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.config import Settings
    from cortex_embed.domain import Provider
    from cortex_embed.metrics import Metrics
    from cortex_embed.providers.engines import Chosen, EngineChoice

    FellBack = Callable[[str, EngineChoice], object]
    """Told of the engine that computes a model, by its id, in the stead of the one chosen."""


def pool_of(
    settings: Settings,
    models: Sequence[Chosen | None],
    metrics: Metrics,
    fell_back: FellBack = lambda _model, _engine: None,
) -> ModelPool:
    """The pool of `models`, the default first; all count in `metrics`.

    None stands for the model that has no files (`hashing`). Alone, a model has all of
    --max-memory to itself; several share it. Raises UsageError where they cannot.
    """
    with_files = [one for one in models if one is not None]
    local = partial(_local, settings, metrics, fell_back)
    if len(models) == 1:
        if models[0] is None:
            return ModelPool([_hash()])
        make = partial(local, models[0], max_memory=settings.max_memory)
        return ModelPool([Candidate(models[0].artifact.spec.id, make)])
    from cortex_embed.providers import memory

    bound, share = memory.shared(with_files, settings.max_memory, settings.max_models_memory)
    candidates = []
    for one in models:
        if one is None:
            candidates.append(_hash())
            continue
        size = memory.footprint(one, states=one is models[0])
        make = partial(local, one, run_memory=share)
        candidates.append(Candidate(one.artifact.spec.id, make, size.loaded, size.loading))
    return ModelPool(candidates, max_memory=bound, idle=settings.model_idle)


def _hash() -> Candidate:
    from cortex_embed.providers import hashing

    return Candidate(hashing.SPEC.id, hashing.HashingProvider)


def _local(
    settings: Settings,
    metrics: Metrics,
    fell_back: FellBack,
    chosen: Chosen,
    *,
    max_memory: int = 0,
    run_memory: int = 0,
) -> Provider:
    from cortex_embed.providers.cores import available_cores
    from cortex_embed.providers.local import LocalProvider

    return LocalProvider(
        chosen.artifact,
        precision=chosen.precision,
        engine=chosen.engine,
        fell_back=partial(fell_back, chosen.artifact.spec.id),
        threads=settings.threads or available_cores(),
        max_batch_tokens=settings.max_batch_tokens,
        max_queue_tokens=settings.max_queue_tokens,
        max_memory=max_memory,
        run_memory=run_memory,
        max_request_tokens=settings.max_request_tokens,
        metrics=metrics,
    )
