"""How much memory a run takes, how much is taken, and giving it back.

Micro-batches are the only thing here whose size is ours to choose, so a bound on memory
becomes a bound on them. It must never read or keep a text.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_PLATFORM: str = sys.platform  # a plain string: mypy would judge by its own platform
_FLOAT = 4
_CGROUP = Path("/sys/fs/cgroup")
_STATM = Path("/proc/self/statm")
_RESERVE = 24 * 2**20
"""For what is not a run: bodies, replies, the queue, the interpreter's own growth."""


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


def fit(
    limit: int, taken: int, manifest: Mapping[str, Any], *, workers: int, max_batch_tokens: int
) -> Fit:
    """The most that stays within `limit` bytes when `taken` are in use already.

    Raises UsageError, with the least that would do, where not even one text fits.
    """
    longest = manifest["max_tokens"]
    room = limit - taken - _RESERVE
    least = run_bytes(manifest, longest, longest)
    if room < least:
        needed = -(-(taken + _RESERVE + least) // 2**20)
        raise UsageError(
            f"--max-memory: {limit // 2**20} MiB is too little; this model needs {needed} MiB with "
            "one text at a time. Raise it, or choose a smaller model or precision."
        )
    # One worker more than asked for: the thread that short requests have to themselves.
    workers = max(1, min(workers, room // least - 1))
    share = room // (workers + 1) if room // least > 1 else room
    per_token = run_bytes(manifest, 1, 0)
    scores = run_bytes(manifest, 0, longest)
    return Fit(workers, max(longest, min(max_batch_tokens, (share - scores) // per_token)))


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


def give_back() -> bool:
    """Return freed memory to the system; whether that was possible (glibc only)."""
    if _PLATFORM != "linux":
        return False
    import ctypes

    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return False  # musl frees by itself
    trim(0)
    return True
