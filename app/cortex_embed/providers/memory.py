"""How much memory a run takes, how much is taken, and giving it back.

Micro-batches are the only thing here whose size is ours to choose, so a bound on memory
becomes a bound on them. It must never read or keep a text.
"""

from __future__ import annotations

import sys
from bisect import bisect_right
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cortex_embed.domain import stored_as
from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from cortex_embed.providers.engines import Chosen

    RunBytes = Callable[[int, int], int]
    """Upper estimate of what one run allocates: of so many tokens, the longest text of so many."""

_PLATFORM: str = sys.platform  # a plain string: mypy would judge by its own platform
_FLOAT = 4
_M_ARENA_MAX = -8  # malloc.h
_CGROUP = Path("/sys/fs/cgroup")
_STATM = Path("/proc/self/statm")
_RESERVE = 24 * 2**20
"""For what is not a run: bodies, replies, the queue, the interpreter's own growth."""


_PROCESS = 96 * 2**20
"""What a server takes without a model: the interpreter, the libraries, their first use."""
# Measured with onnxruntime 1.31 on x86-64: 30 to 130 MB of weights, tokenizers of 30,000 and
# 250,000 tokens. A loaded session keeps the weights and, of those of matrix products, another
# copy in its own layout (the session for a text alone one more).
_WEIGHTS = 1.6
_FOREIGN_WEIGHTS = 3.2
"""While a graph that is not ours is optimized, its weights are there three times."""
_STATES = 0.6
"""What the session of token states takes on top, once somebody asks for them: 41 MB of 86 MB of
float32 weights, 12 of 23 in int8."""
_TOKENIZER = 24.0
"""tokenizer.json is text; its vocabulary and trie take ten times (WordPiece) to 24 (Unigram)."""
_SESSION = 12 * 2**20


@dataclass(frozen=True, slots=True)
class Fit:
    """How many runs at once, of how many padded tokens, stay within the bound."""

    workers: int
    max_batch_tokens: int


def run_bytes(manifest: Mapping[str, Any], tokens: int, longest: int) -> int:
    """Upper estimate of what one run of `tokens` padded tokens allocates.

    The widest moment of a layer: its input, its residual, query, key, value and the
    feed-forward's two wide buffers, and the scores of one text's heads.
    """
    hidden, wide, heads = (manifest[k] for k in ("hidden", "intermediate", "heads"))
    states = tokens * (6 * hidden + 2 * wide) * _FLOAT
    return int(states + heads * longest * longest * _FLOAT)


def runs(chosen: Chosen) -> RunBytes:
    """What a run of a model takes in its engine. Raises NativeEngineError."""
    artifact = chosen.artifact
    if chosen.engine.name != "native":
        return partial(run_bytes, artifact.manifest)
    from cortex_embed.kernels import best, binding, load
    from cortex_embed.providers.engines import shape_of

    kernels = load(best(chosen.precision))
    model = binding.Model(shape_of(artifact, chosen.precision), kernels.isa)

    def native(tokens: int, longest: int) -> int:
        # There are no more texts than tokens. Of one thread: a text that has all of them is alone.
        size = kernels.workspace_bytes(model, tokens=tokens, texts=tokens, longest=longest, ranks=1)
        return size + tokens * artifact.spec.dimensions * _FLOAT

    return native


def state_bytes(dimensions: int) -> int:
    """Upper estimate of what one token's state takes until it is sent: the numbers, and their
    JSON twice (the parts, and the parts joined) with up to 15 characters a number."""
    return dimensions * (_FLOAT + 2 * 15)


def fit(
    limit: int,
    taken: int,
    run: RunBytes,
    longest: int,
    *,
    workers: int,
    max_batch_tokens: int,
    beside: int = 1,
) -> Fit:
    """The most that stays within `limit` bytes when `taken` are in use already; texts have up to
    `longest` tokens. `beside` is how many runs hold memory besides the workers': that of the thread
    which short requests have to themselves, and one that lies ready where it has its memory then.

    Raises UsageError, with the least that would do, where not even one text fits.
    """
    room = limit - taken - _RESERVE
    least = run(longest, longest)
    if room < least:
        needed = -(-(taken + _RESERVE + least) // 2**20)
        raise UsageError(
            f"--max-memory: {limit // 2**20} MiB is too little; this model needs {needed} MiB with "
            "one text at a time. Raise it, or choose a smaller model or precision."
        )
    asked = {"workers": workers, "max_batch_tokens": max_batch_tokens, "beside": beside}
    return within(room, run, longest, **asked)


def within(
    room: int,
    run: RunBytes,
    longest: int,
    *,
    workers: int,
    max_batch_tokens: int,
    beside: int = 1,
) -> Fit:
    """The most whose runs stay within `room` bytes, which is enough for one text; see `fit`."""
    least = run(longest, longest)
    workers = max(1, min(workers, room // least - beside))
    share = room // (workers + beside) if room // least > 1 else room
    more = range(longest + 1, max_batch_tokens + 1)
    fitting = bisect_right(more, share, key=lambda tokens: run(tokens, longest))
    return Fit(workers, longest + fitting)


@dataclass(frozen=True, slots=True)
class Footprint:
    """Upper estimates, in bytes: what a model takes when loaded (runs not included), and while
    it is loading."""

    loaded: int
    loading: int


def footprint(chosen: Chosen, *, states: bool = False) -> Footprint:
    """What a model will take in its precision and its engine, by the sizes of its files.

    With `states`, its session of token states is counted before it is made: whoever asks for
    them first must not be what breaks the bound.
    """
    artifact = chosen.artifact
    graphs = [g for g in artifact.graphs if g.precision == stored_as(chosen.precision)]
    rest = int(_TOKENIZER * artifact.files["tokenizer.json"].size) + _SESSION
    if not artifact.is_own:
        # The graph, and what lies beside it: a manifest does not say which file holds weights.
        small = {"tokenizer.json", "config.json"}
        data = sum(f.size for name, f in artifact.files.items() if name not in small)
        return Footprint(int(_WEIGHTS * data) + rest, int(_FOREIGN_WEIGHTS * data) + rest)
    data = sum(artifact.files[name].size for name in {g.data for g in graphs})
    more = int(_STATES * data) if states and any(g.output == "tokens" for g in graphs) else 0
    if chosen.engine.name == "native":
        # The session of token states maps what is packed here once more.
        return _native_footprint(chosen, data, rest + (more and more + data))
    loaded = int(_WEIGHTS * data) + more + rest
    return Footprint(loaded, loaded)


def _native_footprint(chosen: Chosen, data: int, rest: int) -> Footprint:
    """The weights are mapped, then packed; packed ones are let go of as they are mapped."""
    from cortex_embed.kernels import best, load
    from cortex_embed.providers.engines import shape_of

    kernels = load(best(chosen.precision))
    packed = kernels.packed_bytes(shape_of(chosen.artifact, chosen.precision))
    hidden, wide, layers = (
        chosen.artifact.manifest[k] for k in ("hidden", "intermediate", "layers")
    )
    linears = layers * (4 * hidden * hidden + 2 * hidden * wide)
    linears *= 1 if chosen.precision == "int8" else _FLOAT  # as stored: int16 is made of these
    return Footprint(data - linears + packed + rest, data + packed + rest)


def shared(chosen: Sequence[Chosen], limit: int, models: int) -> tuple[int, int]:
    """How several models share a process: bytes that those in memory may take together, and what
    each may take for its runs; 0 for no bound.

    `limit` bounds the process and `models` the models, 0 for neither. Raises UsageError, with
    the least that would do, where a model would not fit alone.
    """
    bound = models or limit // 2
    # Token states are asked of the default model alone, which is the first.
    needed = max(footprint(one, states=one is chosen[0]).loading for one in chosen)
    if bound and needed > bound:
        whence = "" if models else " (half of --max-memory)"
        raise UsageError(
            f"--max-models-memory: {bound // 2**20} MiB{whence} is too little; the largest of "
            f"these models needs {-(-needed // 2**20)} MiB. Raise it, or choose a smaller model or "
            "precision."
        )
    if not limit:
        return bound, 0
    longest = [(one, one.artifact.spec.max_tokens) for one in chosen]
    least_run = max(runs(one)(tokens, tokens) for one, tokens in longest)
    share = (limit - bound - _PROCESS - _RESERVE) // len(chosen)
    if share < least_run:
        least = -(-(bound + _PROCESS + _RESERVE + least_run * len(chosen)) // 2**20)
        raise UsageError(
            f"--max-memory: {limit // 2**20} MiB is too little for {len(chosen)} models, of "
            f"which {bound // 2**20} MiB may be loaded: one text at a time for each takes {least} "
            "MiB. Raise it, lower --max-models-memory, or serve fewer models."
        )
    return bound, share


def cgroup_limit(cgroup: Path = _CGROUP) -> int | None:
    """Bytes that the cgroup allows, or None without a limit.

    v2: `memory.max`; v1: a number near 2**63 means none (Documentation/admin-guide/cgroup-v2.rst).
    """
    for file in (cgroup / "memory.max", cgroup / "memory" / "memory.limit_in_bytes"):
        try:
            word = file.read_text(encoding="ascii").strip()
        except OSError:
            continue
        if word.isdecimal() and int(word) < 2**60:
            return int(word)
    return None


def resident() -> int | None:
    """Bytes of physical memory in use now; None where the system does not say cheaply."""
    if _PLATFORM == "linux":
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
        import resource

        return pages * resource.getpagesize()
    return None


def share_arenas() -> bool:
    """Let all threads allocate from few arenas; whether that was possible (glibc only).

    glibc gives each thread one of its own, up to eight for each processor, and each keeps what
    its largest request body once took: measured, 60 MB more after 20,000 odd bodies.
    """
    mallopt = _libc("mallopt")
    return mallopt is not None and mallopt(_M_ARENA_MAX, 2) == 1


def give_back() -> bool:
    """Return freed memory to the system; whether that was possible (glibc only)."""
    trim = _libc("malloc_trim")
    if trim is None:
        return False
    trim(0)
    return True


def _libc(name: str) -> Any:
    """A function of glibc; None elsewhere (musl frees by itself)."""
    if _PLATFORM != "linux":
        return None
    import ctypes

    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
