"""How many threads this process may keep busy without being a bad guest.

Physical cores, affinity (taskset, cpusets) and the cgroup's CPU quota all bound it. It must
never start a thread or measure anything: it reads what the system says.
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_PLATFORM: str = sys.platform  # a plain string: mypy would judge by its own platform
_TOPOLOGY = Path("/sys/devices/system/cpu")


def available_cores(cgroup: Path = _CGROUP, topology: Path = _TOPOLOGY) -> int:
    """Physical cores this process may use, at least 1.

    The two threads of one core share its arithmetic units: a second one adds nothing here and
    takes from the host's other programs.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = os.sched_getaffinity(0)
        siblings = {_siblings(topology, cpu) or frozenset({cpu}) for cpu in allowed}
        cores = len(siblings)
    else:
        cores = _sysctl("hw.physicalcpu") or os.cpu_count() or 1
    quota = cgroup_quota(cgroup)
    return max(1, min(cores, math.floor(quota))) if quota else cores


def _siblings(topology: Path, cpu: int) -> frozenset[int]:
    """The logical processors of `cpu`'s core, from a list such as `0,4` or `0-1`."""
    found: set[int] = set()
    for words in _words(topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"):
        for part in words.split(","):
            first, _, last = part.partition("-")
            found |= set(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _sysctl(name: str) -> int | None:
    """A whole number from macOS's sysctl, or None elsewhere."""
    if _PLATFORM != "darwin":
        return None
    import ctypes

    value = ctypes.c_int(0)
    length = ctypes.c_size_t(ctypes.sizeof(value))
    libc = ctypes.CDLL(None)
    failed = libc.sysctlbyname(
        name.encode(), ctypes.byref(value), ctypes.byref(length), None, ctypes.c_size_t(0)
    )
    return None if failed else value.value or None


def cgroup_quota(cgroup: Path = _CGROUP) -> float | None:
    """CPUs that the cgroup allows, or None without a limit.

    v2: `cpu.max` holds "QUOTA PERIOD" or "max PERIOD" in microseconds; v1: two files
    (Documentation/admin-guide/cgroup-v2.rst, scheduler/sched-bwc.rst).
    """
    v2 = _words(cgroup / "cpu.max")
    if len(v2) == 2 and v2[0] != "max":
        return int(v2[0]) / int(v2[1])
    quota = _words(cgroup / "cpu" / "cpu.cfs_quota_us")
    period = _words(cgroup / "cpu" / "cpu.cfs_period_us")
    if quota and period and int(quota[0]) > 0:
        return int(quota[0]) / int(period[0])
    return None


def _words(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii").split()
    except OSError:
        return []
