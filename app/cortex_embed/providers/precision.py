"""Float32, int16 or int8: decided once, before anything is loaded, and said aloud.

int8 vectors lie close to float32's but are not the same, so the choice is the person's;
`auto` takes int8 where the export measured that the model keeps its quality and bytes are
multiplied faster than floats. It must never change a choice that was made by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cortex_embed.domain import stored_as
from cortex_embed.errors import ModelFileError
from cortex_embed.providers import engines, processor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.models.artifact import Artifact


@dataclass(frozen=True, slots=True)
class Choice:
    """`precision` is `fp32`, `int16` or `int8`; `reason` a phrase where it was not simply asked
    for."""

    precision: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.precision}: {self.reason}" if self.reason else self.precision


def choose(
    asked: str | None,
    artifact: Artifact,
    engine: str = "auto",
    *,
    features: frozenset[str] | None = None,
    sets: Sequence[str] | None = None,
) -> Choice:
    """What to serve `artifact` in on the engine asked for; None is fp32 where it has that.

    `features` are the processor's, `sets` those of the kernels that it runs, by default what it
    says itself. Raises ModelFileError for a precision that the artifact lacks, and UsageError as
    `engines.choose` does.
    """
    has = artifact.precisions
    if asked is not None and asked != "auto":
        return _named(asked, artifact)
    if "fp32" not in has:
        return Choice("int8", "the model has nothing else")
    if asked is None:
        return Choice("fp32")
    return _automatic(artifact, engine, features, sets)


def _automatic(
    artifact: Artifact, engine: str, features: frozenset[str] | None, sets: Sequence[str] | None
) -> Choice:
    if "int8" not in artifact.precisions:
        return Choice("fp32", "the model has no int8")
    if not artifact.passed_gate("int8"):
        return Choice("fp32", "int8 has not passed this model's quality gate")
    # Our kernels gain by bytes on every processor that they run on, on AVX2 alone as well.
    if engines.choose(engine, artifact, "int8", sets).name == "native":
        return Choice("int8", "passed its quality gate")
    instructions = processor.integer_dot_product(
        processor.features() if features is None else features
    )
    if instructions is None:
        return Choice("fp32", "this processor has no integer dot product")
    return Choice("int8", f"passed its quality gate; {instructions}")


def _named(asked: str, artifact: Artifact) -> Choice:
    stored = stored_as(asked)
    if stored not in artifact.precisions:
        of = "" if stored == asked else f", and {asked} is made of {stored}"
        raise ModelFileError(
            f"--precision {asked}: {artifact.directory} has {', '.join(artifact.precisions)}{of}. "
            "Choose what it has, or export the model again."
        )
    if asked == "int8" and not artifact.passed_gate("int8"):
        return Choice(asked, "it has not passed this model's quality gate")
    return Choice(asked)
