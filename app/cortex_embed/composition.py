"""From settings to a service: which models they name, where these lie, and what serves them.

The one place that knows settings, models and the service alike, for the commands. It must never
read more of a model than its manifest: a port is bound before anything is hashed or loaded.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError, UsageError
from cortex_embed.metrics import Metrics
from cortex_embed.service import EmbeddingService, Limits, ServedModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.config import Settings
    from cortex_embed.models.artifact import Artifact
    from cortex_embed.providers.precision import Choice


@dataclass(frozen=True, slots=True)
class Located:
    """A model that `settings` name, and the precision to serve it in. Nothing is hashed yet.

    `artifact` is None for the model that has no files, `hash`.
    """

    model: ServedModel
    choice: Choice
    artifact: Artifact | None = None

    @property
    def whence(self) -> str:
        """Where it is, for people."""
        return "computed" if self.artifact is None else str(self.artifact.directory)


def locate_models(settings: Settings) -> tuple[Located, ...]:
    """Find every model and read its manifest, the default first.

    Raises ModelFileError, ModelNotFoundError, and UsageError where two go by one name.
    """
    found: list[Located] = []
    for name in settings.model or (None,):
        one = locate_model(settings, name)
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
    from cortex_embed.models.fingerprint import fingerprint
    from cortex_embed.models.store import locate
    from cortex_embed.providers.precision import choose

    artifact = locate(name, settings.model_dir)
    choice = choose(settings.precision, artifact)
    identity = fingerprint(artifact, choice.precision)
    model = ServedModel(
        artifact.spec,
        int(time.time()),
        fingerprint=identity,
        facts=artifact.facts(choice.precision) | {"fingerprint": identity},
        origin=f"{choice}; from {artifact.directory}",
    )
    return Located(model, choice, artifact)


def _hashing(settings: Settings) -> Located:
    """The model that is a hash; only for who asked for it by name."""
    from cortex_embed.providers import hashing
    from cortex_embed.providers.precision import Choice

    if settings.precision not in {None, "auto", hashing.PRECISION}:
        raise ModelFileError(
            f"--precision {settings.precision}: the model {hashing.SPEC.id} has "
            f"{hashing.PRECISION}. Leave --precision out."
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
    from cortex_embed.providers.assembly import pool_of

    first = next(iter(settings.model), None)
    found = located or (locate_model(settings, first),)
    limits = Limits(
        max_inputs=settings.max_inputs,
        max_text_chars=settings.max_text_chars,
        truncate="none" if settings.on_overlong == "error" else "end",
    )
    metrics = Metrics()
    pool = pool_of(settings, [(one.artifact, one.choice.precision) for one in found], metrics)
    models = [one.model for one in found]
    return EmbeddingService(pool, limits=limits, models=models, metrics=metrics)
