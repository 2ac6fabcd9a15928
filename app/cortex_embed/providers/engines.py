"""Which engine computes a model's vectors: decided once, before anything is loaded, said aloud.

The native engine runs our kernels, which are made for one kind of encoder; ONNX Runtime runs
everything. Both read the same files and give vectors of one fingerprint, which agree within
rounding. It must never change a choice that was made by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from cortex_embed.errors import ModelFileError, NativeEngineError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.kernels import binding
    from cortex_embed.models.artifact import Artifact
    from cortex_embed.providers.engine import Engine
    from cortex_embed.providers.native_engine import NativeEngine
    from cortex_embed.providers.repository_engine import RepositoryEngine

    AnyEngine = Engine | NativeEngine | RepositoryEngine

Name = Literal["native", "onnxruntime"]

NATIVE_ONLY = frozenset({"int16"})
"""Precisions that ONNX Runtime has no kernels for."""
_FAMILY = "bert"
_MULTIPLE = 64
_HEAD_WIDTHS = (32, 64)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """`reason` is a phrase, empty where ONNX Runtime was asked for; `by_name` says whether the
    person chose."""

    name: Name = "onnxruntime"
    reason: str = ""
    by_name: bool = False

    def __str__(self) -> str:
        return f"engine {self.name}: {self.reason}" if self.reason else f"engine {self.name}"


ONNX_RUNTIME = EngineChoice()


class Chosen(NamedTuple):
    """A model as it is to be served."""

    artifact: Artifact
    precision: str
    engine: EngineChoice = ONNX_RUNTIME


def choose(
    asked: str, artifact: Artifact, precision: str, sets: Sequence[str] | None = None
) -> EngineChoice:
    """The engine for `artifact` in `precision`; `sets` are the instruction sets of the kernels
    that this processor runs, best first, by default those that it says.

    Raises UsageError where the native engine was asked for by name, or is the only one that
    has the precision, and cannot be had.
    """
    from cortex_embed import kernels

    needed = precision in NATIVE_ONLY
    if asked == "onnxruntime" and needed:
        raise UsageError(
            f"--engine onnxruntime: it does not compute in {precision}, the native engine does. "
            "Leave --engine out, or choose --precision fp32."
        )
    if asked == "onnxruntime":
        return EngineChoice(by_name=True)
    try:
        _check(artifact)
        best = kernels.best(precision, sets)
    except NativeEngineError as why:
        if needed:
            raise UsageError(
                f"--precision {precision}: only the native engine computes in it, and "
                f"{artifact.spec.id} cannot run on that: {why.message}. Choose --precision fp32."
            ) from None
        if asked == "native":
            raise UsageError(
                f"--engine native: {artifact.spec.id} cannot run on it: {why.message}. "
                "Leave --engine out, and ONNX Runtime runs it."
            ) from None
        return EngineChoice(reason=why.message)
    return EngineChoice("native", best, by_name=asked == "native")


def _check(artifact: Artifact) -> None:
    """Raises NativeEngineError for a model that the kernels are not made for."""
    spec, manifest = artifact.spec, artifact.manifest
    if not artifact.is_own:
        raise NativeEngineError("the graph is the repository's own")
    if spec.family != _FAMILY:
        raise NativeEngineError(f"the kernels are for the family {_FAMILY}, this is {spec.family}")
    from cortex_embed.kernels import POOLINGS

    if spec.pooling not in POOLINGS:
        raise NativeEngineError(f"the kernels pool by {' or '.join(POOLINGS)}, not {spec.pooling}")
    for key in ("hidden", "intermediate"):
        if manifest[key] % _MULTIPLE:
            raise NativeEngineError(f"{key} is {manifest[key]}, no multiple of {_MULTIPLE}")
    if manifest["hidden"] not in [manifest["heads"] * width for width in _HEAD_WIDTHS]:
        widths = " or ".join(map(str, _HEAD_WIDTHS))
        raise NativeEngineError(
            f"its {manifest['heads']} heads share {manifest['hidden']} channels, and the kernels "
            f"take {widths} a head"
        )


def make(chosen: Chosen, threads: int, fell_back: Callable[[Chosen], object]) -> AnyEngine:
    """Load the engine that was chosen.

    A graph that turns out not to be of the kind runs on ONNX Runtime: `fell_back` is told of what
    is served now, and so is the log. Raises ModelFileError, also in its stead where the native
    engine was asked for by name or is the only one that has the precision.
    """
    if chosen.engine.name == "onnxruntime":
        return _onnxruntime(chosen, threads)
    try:
        return _native(chosen, threads)
    except NativeEngineError as why:
        if chosen.precision in NATIVE_ONLY:
            raise ModelFileError(
                f"--precision {chosen.precision}: only the native engine computes in it, and it "
                f"cannot run the graph of {chosen.artifact.directory}: {why.message}. Choose "
                "--precision fp32."
            ) from None
        if chosen.engine.by_name:
            raise ModelFileError(
                f"--engine native: it cannot run the {chosen.precision} graph of "
                f"{chosen.artifact.directory}: {why.message}. Leave --engine out, and ONNX Runtime "
                "runs it."
            ) from None
        other = chosen._replace(engine=EngineChoice(reason=why.message))
    _say_fallback(other)
    fell_back(other)
    return _onnxruntime(other, threads)


def _native(chosen: Chosen, threads: int) -> NativeEngine:
    from cortex_embed.providers.native_engine import NativeEngine

    artifact, precision, _ = chosen
    return NativeEngine(
        artifact.graph_for(precision),
        dimensions=artifact.spec.dimensions,
        threads=threads,
        in_int16=precision == "int16",
    )


def _onnxruntime(chosen: Chosen, threads: int) -> Engine | RepositoryEngine:
    from cortex_embed.providers.engine import Engine, newest_opset

    artifact, precision, _ = chosen
    spec = artifact.spec
    graph = artifact.graph_for(precision, newest_opset())
    if artifact.is_own:
        return Engine(graph, dimensions=spec.dimensions, threads=threads)
    from cortex_embed.providers.repository_engine import RepositoryEngine

    return RepositoryEngine(
        graph,
        dimensions=spec.dimensions,
        pooling=spec.pooling,
        threads=threads,
        late_positions=spec.has_late_positions,
    )


def _say_fallback(chosen: Chosen) -> None:
    import logging  # not at the top: every start reads this module

    logging.getLogger(__name__).warning(
        "%s: the native engine cannot run its graph: %s. ONNX Runtime runs it.",
        chosen.artifact.spec.id,
        chosen.engine.reason,
    )


def shape_of(artifact: Artifact, precision: str) -> binding.Shape:
    """What the kernels need to know of a model that is not loaded yet, to say what it takes."""
    from cortex_embed.kernels import POOLINGS, PRECISIONS, binding

    counts = {key: artifact.manifest[key] for key in ("layers", "hidden", "heads", "intermediate")}
    return binding.Shape(
        **counts,
        pooling=POOLINGS.index(artifact.spec.pooling),
        precision=PRECISIONS.index(precision),
    )
