"""Servers side by side over loopback, and ours against its own engine without HTTP.

The client runs on the same cores as the server, for all alike; what it costs is part of every
figure here. It must never compare two servers from different rounds.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bench.engines import start, vectors_file
from bench.envs import PeerError
from bench.machine import watched
from bench.servers import running

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.engines import Plan
    from bench.models import BenchModel
    from bench.peers import Server
    from bench.servers import Running
    from bench.texts import TextSet


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of load."""

    name: str
    texts: str
    concurrency: int
    batch: int


SCENARIOS = (
    Scenario("1 client, 1 short text", "short", 1, 1),
    Scenario("64 clients, 1 short text", "short", 64, 1),
    Scenario("8 clients, 1 passage", "passages", 8, 1),
    Scenario("2 clients, 100 short texts", "short", 2, 100),
)


@dataclass(slots=True)
class Served:
    """What became of one server. `rounds` map a scenario's name to its figures."""

    name: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    cosine: dict[str, float] = field(default_factory=dict)


def compare(
    plan: Plan,
    model: BenchModel,
    servers: Sequence[Server],
    sets: dict[str, TextSet],
    reference: str,
) -> list[Served]:
    """Every server in every scenario, rounds interleaved; the server starts anew in each."""
    found = {server.name: Served(server.name) for server in servers}
    for number in range(1 if plan.quick else 3):
        for server in servers:
            served = found[server.name]
            if served.error:
                continue
            print(f"HTTP, round {number + 1}: {server.name}", flush=True)
            try:
                with running(plan, model, server) as up:
                    if number == 0:
                        served.cosine = _cosine(plan, model, up, sets, reference)
                    row = _scenarios(plan, up, sets)
                if server.is_ours:
                    row["in process"] = _in_process(plan, model, server, sets["short"])
                served.rounds.append(row)
            except PeerError as why:
                served.error = str(why)
                print(f"  failed: {served.error.splitlines()[0]}", flush=True)
    return list(found.values())


def _scenarios(plan: Plan, up: Running, sets: dict[str, TextSet]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for scenario in SCENARIOS:
        with watched(up.pid) as load:
            figures = up.load(
                sets[scenario.texts].path,
                concurrency=scenario.concurrency,
                batch=scenario.batch,
                seconds=2.0 if plan.quick else 8.0,
            )
        row[scenario.name] = figures | {"load": load.facts()}
    row["peak_rss_mb"] = up.memory_mb("HWM")
    return row


def _cosine(
    plan: Plan, model: BenchModel, up: Running, sets: dict[str, TextSet], reference: str
) -> dict[str, float]:
    """Lowest cosine against the reference's vectors, where this run has them."""
    import numpy as np

    lowest = {}
    for name, count in (("short", 16), ("passages", 8)):
        file = vectors_file(plan, model, reference, name)
        if not file.is_file():
            continue
        theirs = np.load(file)[:count].astype(np.float64)
        ours = np.array(up.embed(sets[name].texts[:count]), dtype=np.float64)
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        lowest[name] = float(((ours * theirs).sum(axis=1) / lengths).min())
    return lowest


def _in_process(plan: Plan, model: BenchModel, server: Server, texts: TextSet) -> dict[str, Any]:
    """The same engine without HTTP: all texts at once, and as many callers as connections."""
    with start(plan, "ours", "ours") as worker:
        about = {"model": model.for_worker(), "threads": plan.threads, "options": server.settings}
        worker.ask("load", **about)
        worker.ask("encode", texts=str(texts.path), vectors=None)
        bulk = worker.ask("encode", texts=str(texts.path), vectors=None)
        found: dict[str, Any] = {"bulk": {"texts_per_second": bulk["texts"] / bulk["seconds"]}}
        for clients in (1, 64):
            arguments = {
                "texts": str(texts.path),
                "clients": clients,
                "seconds": 2.0 if plan.quick else 6.0,
            }
            found[f"{clients} clients"] = worker.ask("call", name="concurrent", arguments=arguments)
        return found


def median(served: Served, scenario: str, key: str) -> float | None:
    """Over the undisturbed rounds; over all where none was."""
    rows = [row[scenario] for row in served.rounds if scenario in row]
    quiet = [row for row in rows if not row.get("load", {}).get("disturbed")]
    values = [row[key] for row in quiet or rows]
    return statistics.median(values) if values else None
