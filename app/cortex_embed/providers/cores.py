"""How many threads this process may keep busy without being a bad guest.

Affinity (taskset, cpusets) and the cgroup's CPU quota both bound it. It must never start
a thread or measure anything: it reads what the system says.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available_cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cgroup_quota(cgroup)
    return max(1, min(cores, math.floor(quota))) if quota else cores


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
