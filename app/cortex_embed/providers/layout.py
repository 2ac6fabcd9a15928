"""What a foreign ONNX graph takes and gives, found out from the graph itself.

Our own graphs pool inside and have two inputs; a repository's export has whatever its exporter
left. It must never guess: what is not understood is an error that names it, since the wrong
output (BERT's `pooler_output`) is a well-formed vector of another space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]

Pooling = Literal["cls", "mean", "last_token"]

_POOLED = ("sentence_embedding", "sentence_embeddings", "text_embeds", "dense_vecs", "embeddings")
"""Names under which exporters give one finished vector a text."""
_STATES = ("last_hidden_state", "token_embeddings", "hidden_states", "output_0")
"""Names under which they give the state of every token."""
_NEVER = "pooler_output"
_CACHE = "past_key_values."
_TYPES = {"tensor(int64)": "int64", "tensor(int32)": "int32"}
_FLOATS = {"tensor(float)": "float32", "tensor(float16)": "float16"}


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a graph: `shape` has numbers, and names for what varies."""

    name: str
    type: str
    shape: tuple[int | str | None, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """How to feed a graph, and which of its outputs to read.

    `output` is [batch, dimensions] where `pooling` is None, else [batch, sequence, dimensions]
    and to be pooled.
    """

    inputs: tuple[Port, ...]
    output: str
    pooling: Pooling | None

    @property
    def how(self) -> str:
        """For people: what is read."""
        where = f"pooled by us ({self.pooling})" if self.pooling else "pooled by the graph"
        return f"output {self.output}, {where}"

    def feed(self, batch: Sequence[Ids]) -> dict[str, NDArray[Any]]:
        """The graph's inputs for token ids of b texts, padded on the right with zeros."""
        import numpy as np

        longest = max(len(ids) for ids in batch)
        shape = (len(batch), longest)
        given: dict[str, NDArray[Any]] = {}
        for port in self.inputs:
            if port.name.startswith(_CACHE):
                given[port.name] = np.zeros(_empty_cache(port, len(batch)), _FLOATS[port.type])
                continue
            values = np.zeros(shape, dtype=_TYPES[port.type])
            if port.name == "position_ids":
                values[:] = np.arange(longest)
            for row, ids in enumerate(batch):
                if port.name == "input_ids":
                    values[row, : len(ids)] = ids
                elif port.name == "attention_mask":
                    values[row, : len(ids)] = 1
            given[port.name] = values
        return given

    def pool(self, output: NDArray[Any], batch: Sequence[Ids]) -> Vectors:
        """float32 [b, dimensions] from the graph's output.

        Each row is computed from its own tokens alone, in an order that its neighbours and the
        padding have no part in.
        """
        import numpy as np

        if self.pooling is None:
            return np.ascontiguousarray(output, dtype=np.float32)
        rows = np.empty((len(batch), output.shape[-1]), dtype=np.float32)
        for row, ids in enumerate(batch):
            states = output[row, : len(ids)]
            if self.pooling == "mean":
                rows[row] = states.mean(axis=0, dtype=np.float64)
            else:
                rows[row] = states[0 if self.pooling == "cls" else -1]
        return rows


def introspect(
    file: Path,
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    *,
    dimensions: int,
    pooling: Pooling,
    late_positions: bool = False,
) -> Layout:
    """Raises ModelFileError for a graph that is no encoder of token ids, or not of this width.

    With `late_positions` (`domain.LATE_POSITIONS`) it has to find out the positions by itself.
    """
    _check_inputs(file, inputs)
    if late_positions and any(port.name == "position_ids" for port in inputs):
        raise ModelFileError(
            f"{file} wants position_ids, and this family counts them from its padding token's id "
            "on, which only the model knows. Export the model again without them."
        )
    fitting = [o for o in outputs if o.type in _FLOATS and o.name != _NEVER]
    pooled = [o for o in fitting if len(o.shape) == 2 and _fits(o, dimensions)]
    states = [o for o in fitting if len(o.shape) == 3 and _fits(o, dimensions)]
    chosen = _named(pooled, _POOLED)
    if chosen is not None:
        return Layout(tuple(inputs), chosen.name, None)
    chosen = _named(states, _STATES) or (states[0] if len(states) == 1 else None)
    if chosen is not None:
        return Layout(tuple(inputs), chosen.name, pooling)
    if len(pooled) == 1 and not states:
        return Layout(tuple(inputs), pooled[0].name, None)
    found = ", ".join(f"{o.name} {list(o.shape)}" for o in outputs) or "none"
    raise ModelFileError(
        f"{file} has no output that is certain to be the embedding: expected one of "
        f"{', '.join((*_POOLED, *_STATES))} with {dimensions} dimensions, found {found}. "
        "Name the right dimensions in the model's description, or export the model again."
    )


def _check_inputs(file: Path, inputs: Sequence[Port]) -> None:
    names = {port.name for port in inputs}
    if "input_ids" not in names:
        raise ModelFileError(
            f"{file} is no text encoder: it has no input_ids, only {', '.join(sorted(names))}."
        )
    known = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
    for port in inputs:
        cache = port.name.startswith(_CACHE)
        if not cache and port.name not in known:
            raise ModelFileError(
                f"{file} wants an input {port.name!r}, which is not known here: "
                f"{', '.join(sorted(known))} are. Export the model again without it."
            )
        if port.type not in (_FLOATS if cache else _TYPES):
            raise ModelFileError(f"{file}: the input {port.name} is of type {port.type}.")
        if not cache and any(isinstance(one, int) for one in port.shape):
            raise ModelFileError(
                f"{file}: the input {port.name} has the fixed shape {list(port.shape)}; export "
                "the model with a batch and a length that may vary."
            )


def _empty_cache(port: Port, batch: int) -> tuple[int, ...]:
    """[batch, heads, 0, width]: a decoder's key-value cache before its first token."""
    numbers = [one for one in port.shape[1:] if isinstance(one, int)]
    if len(port.shape) != 4 or len(numbers) != 2:
        raise ModelFileError(f"The input {port.name} has the unexpected shape {list(port.shape)}.")
    return (batch, numbers[0], 0, numbers[1])


def _fits(port: Port, dimensions: int) -> bool:
    """Whether the last axis can be the vector: exporters sometimes leave its length open."""
    return port.shape[-1] == dimensions or not isinstance(port.shape[-1], int)


def _named(ports: Sequence[Port], names: Sequence[str]) -> Port | None:
    by_name = {port.name: port for port in ports}
    return next((by_name[name] for name in names if name in by_name), None)
