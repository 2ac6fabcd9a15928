"""The engine of our own kernels: token ids in, pooled vectors out, nothing padded.

It runs the files that ONNX Runtime would, and does what `Engine` does. It runs in worker
threads; several may call `run` at once. It must never hand an id or a length to the kernels
that it has not checked, since they read memory by them.
"""

from __future__ import annotations

import mmap
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from cortex_embed.errors import EngineError, ModelFileError, NativeEngineError
from cortex_embed.models.encoder_graph import read_encoder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.kernels import binding
    from cortex_embed.kernels.binding import Kernels
    from cortex_embed.models import encoder_graph as graphs
    from cortex_embed.providers.run_queue import NativeRun, RunQueue
    from cortex_embed.providers.team import Team
    from cortex_embed.vectors import Vectors

    Ids = NDArray[np.int64]
    Bytes = NDArray[np.uint8]

_STEP = 2**18
"""Workspaces grow by so many bytes, or every longer text would need a new one."""
_ENOUGH_TOKENS = 128
"""Of integers: a text of 12 tokens takes 0.54 ms by itself, 0.22 with 7 others like it, 0.21 with
31 (MiniLM, int8, AMX). In float32, whose weights are four times the bytes, 2.6, 1.1 and 0.9."""
_KEPT = 16 * 2**20
_MUCH_LARGER = 4
"""A workspace over _KEPT bytes, so many times as large as a run needs, is given back."""


class NativeEngine:
    """One encoder in one instruction set.

    A run takes one thread. `run_alone` takes all of them, once `widen` has started those that
    stand by; they sleep between runs, and end with `close`. Who has a `queue` needs neither.
    """

    PADS = False
    """A run's texts may be of any lengths: it costs what their tokens cost."""

    def __init__(
        self,
        model: Path,
        *,
        dimensions: int,
        threads: int = 1,
        kernels: Kernels | None = None,
        in_int16: bool = False,
    ) -> None:
        """Read the pooling graph at `model` and pack its weights; by default for the best
        instruction set there is.

        `in_int16` rounds a float32 graph's linear layers to 16-bit integers. Raises
        NativeEngineError where graph or kernels cannot be used, ModelFileError.
        """
        from cortex_embed.kernels import best, load
        from cortex_embed.kernels.binding import aligned

        self._threads = threads
        self._team: Team | None = None
        self._workspaces = _Workspaces()
        encoder = read_encoder(model)
        if in_int16:
            _must_become_integers(encoder)
        precision = "int16" if in_int16 else "int8" if encoder.is_quantized else "fp32"
        self.enough_tokens = 0 if precision == "fp32" else _ENOUGH_TOKENS
        """With more of them, a run computes each no faster; 0 where that is not known."""
        self._kernels = load(best(precision)) if kernels is None else kernels
        if encoder.hidden != dimensions:
            raise ModelFileError(
                f"{model} gives {encoder.hidden} dimensions, not {dimensions}. "
                "Export it again with build/export_onnx.py."
            )
        self._dimensions = dimensions
        self._vocabulary = len(encoder.words)
        self._positions = len(encoder.positions)
        self._encoder = encoder  # the model below holds addresses only
        self._model = _model_of(encoder, precision, self._kernels.isa)
        self._packed = aligned(self._kernels.packed_bytes(self._model.shape))
        self._kernels.pack(self._model, self._packed)
        self._model.packed = self._packed.ctypes.data
        _let_go(encoder)

    def count_ticks(self) -> NDArray[np.uint64]:
        """Where the time of runs goes from now on: uint64 [PHASES], in ticks of the processor's
        counter, added to by every run. Only x86 has one to read: elsewhere it stays at zero.

        For our benchmark: nothing in the program calls it.
        """
        import numpy as np

        from cortex_embed.kernels import PHASES

        self._ticks = np.zeros(len(PHASES), dtype=np.uint64)  # the model holds its address only
        self._model.ticks = self._ticks.ctypes.data
        return self._ticks

    def widen(self) -> None:
        """Start the threads for a text alone. Raises EngineError."""
        if self._threads > 1 and self._team is None:
            from cortex_embed.providers.team import Team

            self._team = Team(self._take_part, self._threads)

    def run(self, batch: Sequence[Ids]) -> Vectors:
        """Token ids of b texts (int64 [length] each) to float32 [b, dimensions], pooled.

        Raises EngineError for an id outside the vocabulary, and for a text without tokens or
        with more than there are positions.
        """
        return self._run(batch, None)

    def run_alone(self, batch: Sequence[Ids]) -> Vectors:
        """The same on all threads: for when nothing else is to be done."""
        return self._run(batch, self._team)

    @property
    def queue(self) -> Callable[[int, Callable[[], object]], RunQueue] | None:
        """For runs on so many threads, all but one of them for a text alone; None where the system
        has no means. To be called inside the event loop, where the second argument is called when
        runs are done. Raises EngineError."""
        from cortex_embed.kernels.binding import HAS_QUEUE

        return self._queue if HAS_QUEUE else None

    def _queue(self, threads: int, told: Callable[[], object]) -> RunQueue:
        from cortex_embed.providers.run_queue import RunQueue

        return RunQueue(self._kernels.library, self._prepare, threads, told)

    def _prepare(self, batch: Sequence[Ids], threads: int) -> NativeRun:
        """As `run` on one thread or more, but laid out only. Raises EngineError."""
        import ctypes

        import numpy as np

        from cortex_embed.kernels.binding import Team as Meeting
        from cortex_embed.kernels.binding import Work
        from cortex_embed.providers.run_queue import NativeRun

        ids, offsets, size = self._laid_out(batch, threads)
        out = np.empty((len(batch), self._dimensions), dtype=np.float32)
        workspace = self._workspaces.take(size)
        meeting = Meeting(ranks=threads)
        team = ctypes.addressof(meeting) if threads > 1 else None
        given = self._arguments(ids, offsets, out, workspace)
        works = [Work(*given, 0, team, rank) for rank in range(threads)]
        release = partial(self._workspaces.put, workspace)
        kept = (ids, offsets, meeting, self._model)
        return NativeRun(self._kernels.library, works, out, kept, release)

    def trim(self) -> None:
        """Give up the buffers that no run uses."""
        self._workspaces.clear()

    def close(self) -> None:
        """End the threads of `widen`, after the run that is under way."""
        if self._team is not None:
            self._team.close()
            self._team = None  # it holds this engine, and a circle outlives its last user

    def _run(self, batch: Sequence[Ids], team: Team | None) -> Vectors:
        import numpy as np

        from cortex_embed.kernels.binding import Team as Meeting

        ids, offsets, size = self._laid_out(batch, ranks=1 if team is None else self._threads)
        out = np.empty((len(batch), self._dimensions), dtype=np.float32)
        workspace = self._workspaces.take(size)
        try:
            given = self._arguments(ids, offsets, out, workspace)
            work = _Work(given, Meeting(ranks=self._threads), offsets)
            if team is None or not team.run(work):
                self._kernels.run(*work.addresses, None, 0)
        finally:
            self._workspaces.put(workspace)
        return out

    def _arguments(self, ids: Ids, offsets: Ids, out: Vectors, workspace: Bytes) -> tuple[int, ...]:
        """What every call of the kernels for one run begins with; see `ck_run`."""
        import ctypes

        return (
            ctypes.addressof(self._model), ids.ctypes.data, offsets.ctypes.data, len(out),
            out.ctypes.data, workspace.ctypes.data,
        )  # fmt: skip

    def _take_part(self, work: _Work, rank: int) -> None:
        import ctypes

        self._kernels.run(*work.addresses, ctypes.addressof(work.meeting), rank)

    def _laid_out(self, batch: Sequence[Ids], ranks: int) -> tuple[Ids, Ids, int]:
        """All ids one text after the other, and where each begins; int64 both, checked. And the
        bytes that a run of them on so many threads needs."""
        import numpy as np

        lengths = [len(ids) for ids in batch]
        if not lengths or min(lengths) < 1 or max(lengths) > self._positions:
            raise EngineError(
                f"Texts of {min(lengths, default=0)} to {max(lengths, default=0)} tokens reached "
                f"the engine; it takes 1 to {self._positions}."
            )
        offsets = np.array([*accumulate(lengths, initial=0)], dtype=np.int64)
        ids = np.concatenate(batch, dtype=np.int64)
        # As unsigned numbers, negative ids are large.
        if ids.shape != (offsets[-1],) or ids.view(np.uint64).max() >= self._vocabulary:
            raise EngineError(
                f"Token ids {ids.min()} to {ids.max()} of shape {ids.shape} reached the engine; it "
                f"has {self._vocabulary} of them, from 0."
            )
        size = self._kernels.workspace_bytes(
            self._model, tokens=len(ids), texts=len(batch), longest=max(lengths), ranks=ranks
        )
        return ids, offsets, size


class _Work(NamedTuple):
    """One run's arguments; `meeting` and `offsets` are what a late thread still reads."""

    addresses: tuple[int, ...]
    meeting: binding.Team
    offsets: Ids


class _Workspaces:
    """Buffers that runs have used, for the next ones: each has one to itself meanwhile."""

    def __init__(self) -> None:
        self._free: list[Bytes] = []

    def take(self, size: int) -> Bytes:
        """At least `size` bytes, aligned to 64, of whatever content."""
        from cortex_embed.kernels.binding import aligned

        try:
            found = self._free.pop()  # atomic, as is append: threads need no lock for it
        except IndexError:
            pass
        else:
            if size <= found.nbytes <= max(_KEPT, _MUCH_LARGER * size):
                return found
            del found  # before there are two
        return aligned(-(-size // _STEP) * _STEP)

    def put(self, workspace: Bytes) -> None:
        self._free.append(workspace)

    def clear(self) -> None:
        self._free.clear()


def _must_become_integers(encoder: graphs.Encoder) -> None:
    """Raises NativeEngineError for weights that int16 cannot be made of: rounded, one that is not
    finite would be a number like any other, where float32 says so in every vector."""
    import numpy as np

    if encoder.is_quantized:
        raise NativeEngineError("int16 is made of float32 weights, and its are int8")
    for layer in encoder.layers:
        for linear in layer.linears:
            # NaN and infinity survive a sum; so do, as infinity, numbers that no model has.
            with np.errstate(over="ignore", invalid="ignore"):
                total = np.abs(linear.weight).sum()
            if not np.isfinite(total):
                raise NativeEngineError(f"its {linear.name} is not finite")


def _model_of(encoder: graphs.Encoder, precision: str, isa: int) -> binding.Model:
    """`encoder` as the kernels read it: addresses of its arrays, which must outlive it."""
    from cortex_embed.kernels import POOLINGS, PRECISIONS, binding

    layers = (binding.Layer * len(encoder.layers))()
    for made, layer in zip(layers, encoder.layers, strict=True):
        for place, linear in enumerate(layer.linears):
            made.linears[place] = binding.Linear(
                _address(linear.weight), _address(linear.scale), _address(linear.bias),
                linear.step, linear.zero,
            )  # fmt: skip
        made.attention_norm = _norm(layer.attention_norm)
        made.output_norm = _norm(layer.output_norm)
    shape = binding.Shape(
        layers=len(encoder.layers),
        hidden=encoder.hidden,
        heads=encoder.heads,
        intermediate=encoder.intermediate,
        pooling=POOLINGS.index(encoder.pooling),
        precision=PRECISIONS.index(precision),
        epsilon=encoder.epsilon,
    )
    return binding.Model(
        shape, isa, _address(encoder.words), _address(encoder.word_scale),
        _address(encoder.positions), _norm(encoder.norm), layers,
    )  # fmt: skip


def _norm(norm: graphs.Norm) -> binding.Norm:
    from cortex_embed.kernels import binding

    return binding.Norm(_address(norm.gamma), _address(norm.beta), _address(norm.smoothing))


def _address(array: NDArray[Any] | None) -> int | None:
    return None if array is None else array.ctypes.data


def _let_go(encoder: graphs.Encoder) -> None:
    """Tell the system that the linear weights, which are packed now, need no memory as mapped."""
    mapped = encoder.graph.mapped
    if mapped is None or not hasattr(mapped, "madvise"):  # not on Windows
        return
    for layer in encoder.layers:
        for linear in layer.linears:
            start, length = encoder.graph.places.get(linear.name, (0, 0))
            first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
            whole = (start + length - first) // mmap.PAGESIZE * mmap.PAGESIZE
            if whole > 0:
                mapped.madvise(mmap.MADV_DONTNEED, first, whole)
