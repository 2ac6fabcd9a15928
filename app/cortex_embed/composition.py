"""From settings to a service: which models they name, where these lie, and what serves them.

The one place that knows settings, models and the service alike, for the commands. It must never
read more of a model than its manifest: a port is bound before anything is hashed or loaded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from cortex_embed.errors import ModelFileError, UsageError
from cortex_embed.metrics import Metrics
from cortex_embed.service import EmbeddingService, Limits, ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.config import Settings
    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.artifact import Artifact
    from cortex_embed.providers.engines import Chosen, EngineChoice
    from cortex_embed.providers.pool import ModelPool
    from cortex_embed.providers.precision import Choice

    Find = Callable[[Settings, str | None], "Located"]


class Located(msgspec.Struct, frozen=True):
    """A model that `settings` name, and how to serve it. Nothing is hashed yet.

    `chosen` is None for the model that has no files, `hash`.
    """

    model: ServedModel
    choice: Choice
    chosen: Chosen | None = None

    @property
    def artifact(self) -> Artifact | None:
        return None if self.chosen is None else self.chosen.artifact

    @property
    def whence(self) -> str:
        """Where it is, for people."""
        return "computed" if self.artifact is None else str(self.artifact.directory)


def locate_models(settings: Settings, find: Find | None = None) -> tuple[Located, ...]:
    """Find every model and read its manifest, the default first; by `find`, or where they are.

    Raises ModelFileError, ModelNotFoundError, and UsageError where two go by one name.
    """
    found: list[Located] = []
    for name in settings.model or (None,):
        one = (find or locate_model)(settings, name)
        for other in found:
            if other.model.spec.answers_to(one.model.spec.id):
                raise UsageError(
                    f"--model: {one.model.spec.id} is named twice ({other.whence}, {one.whence}); "
                    "one server serves one model of a name."
                )
        found.append(one)
    return tuple(found)


def locate_model(settings: Settings, name: str | None) -> Located:
    """Find one model and read its manifest: cheap, and done before a port is bound.

    Raises ModelFileError or ModelNotFoundError.
    """
    from cortex_embed.providers import hashing

    if name is not None and hashing.SPEC.answers_to(name):
        return _hashing(settings)
    from cortex_embed.models.store import locate

    return located(settings, locate(name, settings.model_dir, settings.catalogue))


def located(settings: Settings, artifact: Artifact) -> Located:
    """`artifact` in the precision and the engine that `settings` mean.

    Raises ModelFileError for a precision, UsageError for an engine that cannot be had.
    """
    from cortex_embed.models.fingerprint import fingerprint
    from cortex_embed.providers import engines, precision

    choice = precision.choose(settings.precision, artifact, settings.engine)
    engine = engines.choose(settings.engine, artifact, choice.precision)
    identity = fingerprint(artifact, choice.precision)
    model = ServedModel(
        artifact.spec,
        int(time.time()),
        fingerprint=identity,
        facts=artifact.facts(choice.precision) | _engine_facts(engine) | {"fingerprint": identity},
        origin=f"{choice}; {engine}; from {artifact.directory}",
    )
    return Located(model, choice, engines.Chosen(artifact, choice.precision, engine))


def _engine_facts(engine: EngineChoice) -> dict[str, str]:
    return {"engine": engine.name, "engine_reason": engine.reason}


def _hashing(settings: Settings) -> Located:
    """The model that is a hash; only for who asked for it by name."""
    from cortex_embed.providers import hashing
    from cortex_embed.providers.precision import Choice

    if settings.precision not in {None, "auto", hashing.PRECISION}:
        raise ModelFileError(
            f"--precision {settings.precision}: the model {hashing.SPEC.id} has "
            f"{hashing.PRECISION}. Leave --precision out."
        )
    if settings.engine != "auto":
        raise UsageError(
            f"--engine {settings.engine}: the model {hashing.SPEC.id} is computed without one. "
            "Leave --engine out."
        )
    identity = hashing.fingerprint()
    model = ServedModel(
        hashing.SPEC,
        int(time.time()),
        fingerprint=identity,
        facts=hashing.facts() | {"fingerprint": identity},
        origin=hashing.WARNING,
    )
    return Located(model, Choice(hashing.PRECISION))


def build_service(settings: Settings, located: Sequence[Located] = ()) -> EmbeddingService:
    """A service of the models `located`, or of the first that `settings` name.

    Raises ModelFileError or ModelNotFoundError where that has to be located first, and
    UsageError where the models do not fit into the memory that they may use.
    """
    first = next(iter(settings.model), None)
    metrics = Metrics()
    pool, models = _pool(settings, located or (locate_model(settings, first),), metrics)
    return EmbeddingService(pool, limits=_limits(settings), models=models, metrics=metrics)


def build_downloading(
    settings: Settings, specs: Sequence[ModelSpec], fetch: Callable[[], Sequence[Located]]
) -> EmbeddingService:
    """A service of models that its `download` gets by `fetch` first; `specs` say which."""
    metrics = Metrics()
    now = int(time.time())
    return EmbeddingService(
        (),
        limits=_limits(settings),
        models=[ServedModel(spec, now) for spec in specs],
        metrics=metrics,
        download=lambda: _pool(settings, fetch(), metrics),
    )


def _pool(
    settings: Settings, found: Sequence[Located], metrics: Metrics
) -> tuple[ModelPool, list[ServedModel]]:
    from cortex_embed.providers.assembly import pool_of

    facts = {one.model.spec.id: one.model.facts for one in found}

    def fell_back(model_id: str, engine: EngineChoice) -> None:
        # In place: clients are told what computes, not what was meant to.
        facts[model_id].update(_engine_facts(engine))

    pool = pool_of(settings, [one.chosen for one in found], metrics, fell_back)
    return pool, [one.model for one in found]


def _limits(settings: Settings) -> Limits:
    return Limits(
        max_inputs=settings.max_inputs,
        max_text_chars=settings.max_text_chars,
        truncate="none" if settings.on_overlong == "error" else "end",
    )
