"""What our server promises beyond speed: queries overtake bulk, memory is bounded and flat."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from bench.envs import PeerError
from bench.machine import watched
from bench.servers import finish, running

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from bench.engines import Plan
    from bench.models import BenchModel
    from bench.peers import Server
    from bench.servers import Running
    from bench.texts import TextSet

_QUERY = {"concurrency": 1, "batch": 1, "pause": 0.05}
_BULK = {"concurrency": 8, "batch": 32}
_MIXED = {"concurrency": 8, "batch": 8}
_SAMPLE = 1.0


def examine(
    plan: Plan,
    model: BenchModel,
    servers: Sequence[Server],
    sets: dict[str, TextSet],
    soak_minutes: float,
) -> dict[str, Any]:
    """Query lane, peak memory and soak of each of our servers; an error is a result."""
    found: dict[str, Any] = {}
    for server in servers:
        if not server.is_ours:
            continue
        print(f"query lane and memory: {server.name}", flush=True)
        try:
            with running(plan, model, server) as up:
                lane = query_lane(plan, up, sets)
            # A fresh server: the peak of the mixed load, not of what came before it.
            with running(plan, model, server) as up:
                memory = mixed_memory(plan, up, sets)
                if soak_minutes:
                    memory["soak"] = soak(up, sets["mixed"], soak_minutes)
            found[server.name] = {"lane": lane, "memory": memory}
        except PeerError as why:
            found[server.name] = {"error": str(why)}
            print(f"  failed: {str(why).splitlines()[0]}", flush=True)
    return found


def query_lane(plan: Plan, up: Running, sets: dict[str, TextSet]) -> dict[str, Any]:
    """Single short texts, about 15 a second, alone and while passages keep the server busy.

    The bulk client sends 32 passages a request, 8 at a time, without end: as a job of 100,000
    would, for as long as it is measured.
    """
    seconds = 3.0 if plan.quick else 30.0
    short, passages = sets["short"].path, sets["passages"].path
    with watched(up.pid) as load:
        idle = up.load(short, seconds=seconds, **_QUERY)
        bulk_alone = up.load(passages, seconds=seconds, **_BULK)
        with up.background(passages, seconds=seconds + 4.0, **_BULK) as background:
            time.sleep(3.0)  # the bulk client's own warm-up
            during = up.load(short, seconds=seconds, **_QUERY)
            bulk_during = finish(background)
    return {
        "idle": idle,
        "during_bulk": during,
        "bulk_alone": bulk_alone,
        "bulk_with_queries": bulk_during,
        "p99_over_idle_p50": during["p99_ms"] / idle["p50_ms"],
        "bulk_kept": bulk_during["texts_per_second"] / bulk_alone["texts_per_second"],
        "load": load.facts(),
    }


def mixed_memory(plan: Plan, up: Running, sets: dict[str, TextSet]) -> dict[str, Any]:
    """Resident memory when ready, and its peak under texts of all lengths."""
    ready = up.memory_mb()
    figures = up.load(sets["mixed"].path, seconds=3.0 if plan.quick else 30.0, **_MIXED)
    return {"ready_mb": ready, "peak_mb": up.memory_mb("HWM"), "load": figures}


def soak(up: Running, texts: TextSet, minutes: float) -> dict[str, Any]:
    """Resident memory over `minutes` of texts of random lengths; its growth over the last half.

    Growth is between two medians: of the tenth after the middle, and of the last tenth.
    """
    with up.background(texts.path, seconds=60.0 * minutes, **_MIXED) as load:
        samples = _sampled(up, load)
        figures = finish(load)
    tenth = max(1, len(samples) // 10)
    half = samples[len(samples) // 2 :]
    growth = statistics.median(half[-tenth:]) - statistics.median(half[:tenth])
    return {
        "minutes": minutes,
        "growth_last_half_mb": growth,
        "first_mb": samples[0],
        "last_mb": samples[-1],
        "max_mb": max(samples),
        "requests": figures["requests"],
        "samples": len(samples),
    }


def _sampled(up: Running, load: subprocess.Popen[str]) -> list[float]:
    samples = []
    while load.poll() is None:
        now = up.memory_mb()
        if now is not None:
            samples.append(now)
        time.sleep(_SAMPLE)
    if not samples:
        raise PeerError("the server's memory could not be read on this system")
    return samples
