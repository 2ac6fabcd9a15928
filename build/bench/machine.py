"""What else the machine was doing: the processor's time that went to others while we measured.

Shared machines lie by a factor of two. Every measurement carries the share of the cores that
was stolen or used by foreign processes; a disturbed one is measured again, and never quoted
without saying so.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

DISTURBED = 0.08
"""Share of all cores used by others from which on a measurement counts as disturbed."""
_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


@dataclass(slots=True)
class Load:
    """One measured stretch. `foreign` and `steal` are CPU seconds, None where unknown."""

    wall: float = 0.0
    foreign: float | None = None
    steal: float | None = None
    own: dict[int, float] = field(default_factory=dict)

    @property
    def share(self) -> float | None:
        """Of all cores' time, what others had."""
        if self.foreign is None or self.steal is None or not self.wall:
            return None
        return (self.foreign + self.steal) / (self.wall * (os.cpu_count() or 1))

    @property
    def disturbed(self) -> bool:
        return self.share is not None and self.share > DISTURBED

    def facts(self) -> dict[str, Any]:
        found = asdict(self)
        del found["own"]
        return found | {"share": self.share, "disturbed": self.disturbed}


@contextmanager
def watched(*pids: int) -> Iterator[Load]:
    """The load while the body runs; `pids` (with all their children) and this process are ours."""
    load = Load()
    trees = [p for pid in (*pids, os.getpid()) for p in tree(pid)]
    before, own_before, started = _stat(), _own(trees), time.perf_counter()
    yield load
    load.wall = time.perf_counter() - started
    after = _stat()
    trees = [p for pid in (*pids, os.getpid()) for p in tree(pid)]
    own = sum(max(0.0, s - own_before.get(p, 0.0)) for p, s in _own(trees).items())
    if before is not None and after is not None:
        load.steal = after[1] - before[1]
        load.foreign = max(0.0, after[0] - before[0] - own)


def _stat() -> tuple[float, float] | None:
    """Seconds that all cores were busy, and that the hypervisor took (proc(5), /proc/stat)."""
    try:
        line = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0]
    except OSError:
        return None
    user, nice, system, _, _, irq, softirq, steal, *_ = (int(n) for n in line.split()[1:])
    return (user + nice + system + irq + softirq) / _TICK, steal / _TICK


def _own(pids: list[int]) -> dict[int, float]:
    """CPU seconds of each process so far, its ended children included."""
    found = {}
    for pid in pids:
        fields = _fields(pid)
        if fields:
            found[pid] = sum(int(fields[n]) for n in (11, 12, 13, 14)) / _TICK
    return found


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on; [] when it has ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """`pid` and its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(p) for p in task.read_text(encoding="ascii").split()]
            except OSError:
                continue
    return list(dict.fromkeys(found))


def memory_mb(pid: int, kind: str = "RSS") -> float | None:
    """Resident memory of a process and its children in MB, or the sum of their peaks ("HWM")."""
    total = 0
    for process in tree(pid):
        try:
            status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        for line in status.splitlines():
            if line.startswith(f"Vm{kind}:"):
                total += int(line.split()[1]) * 1024
    return total / 1e6 if total else None


def pin(cores: int) -> None:
    """Keep this process on the first `cores` of its cores, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        usable = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, usable[:cores])
