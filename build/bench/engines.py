"""Libraries side by side: one fresh process a peer and round, rounds interleaved (A B C A B C).

A fresh process, so that no idle peer holds memory or spins while another is measured, and so
that the luck of one start (addresses, page placement) is averaged out. It must never drop a
peer that fails: its error is its result.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from bench.envs import PeerError, clean_environment, prepare
from bench.machine import pin, watched
from bench.texts import SETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.models import BenchModel
    from bench.peers import Engine
    from bench.texts import TextSet

_LATENCY = {"short": 60, "passages": 20}
_RETRIES = 2
_PATIENCE = 900.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    work: Path
    envs: Path
    threads: int
    rounds: int
    quick: bool


@dataclass(slots=True)
class Outcome:
    """What became of one peer. `rounds` hold every measurement, `error` why there are none."""

    name: str
    rounds: list[dict[str, Any]] = field(default_factory=list)
    error: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    cosine: dict[str, dict[str, float]] = field(default_factory=dict)


class Worker:
    """A worker process and its protocol. A context manager: the process ends with it."""

    def __init__(self, python: Path, module: str, threads: int, log: Path) -> None:
        self._log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [str(python), "-m", f"bench.workers.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=clean_environment(threads),
                preexec_fn=partial(pin, threads),  # noqa: PLW1509 - this process has one thread
            )
        self.pid = self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        try:
            self._process.stdin.close()
            self._process.wait(20)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._process.stdout.close()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The answer to one operation. Raises PeerError with the peer's own message."""
        assert self._process.stdin is not None  # noqa: S101
        assert self._process.stdout is not None  # noqa: S101
        watchdog = threading.Timer(_PATIENCE, self._process.kill)
        watchdog.start()
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = ""
        finally:
            watchdog.cancel()
        if not line:
            code = self._process.wait()
            tail = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-6:]
            raise PeerError("\n".join([f"the worker ended with status {code}", *tail]))
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(f"{answer['error']}\n{answer.get('trace', '')}".strip())
        return answer


def start(plan: Plan, env: str, module: str) -> Worker:
    """A worker in its own environment. Raises PeerError if that cannot be made."""
    return Worker(
        prepare(env, plan.envs), module, plan.threads, plan.work / "logs" / f"{module}.log"
    )


def compare(
    plan: Plan, model: BenchModel, peers: Sequence[Engine], sets: dict[str, TextSet]
) -> list[Outcome]:
    """Every peer on every set, `plan.rounds` times, then its vectors against the reference."""
    outcomes = {peer.name: Outcome(peer.name) for peer in peers}
    for number in range(plan.rounds):
        for peer in peers:
            outcome = outcomes[peer.name]
            if outcome.error:
                continue
            print(f"{model.spec.id}, round {number + 1}/{plan.rounds}: {peer.name}", flush=True)
            try:
                outcome.rounds.append(_round(plan, model, peer, sets, outcome, number))
            except PeerError as why:
                outcome.error = str(why)
                print(f"  failed: {outcome.error.splitlines()[0]}", flush=True)
    reference = next(peer.name for peer in peers if peer.reference)
    for outcome in outcomes.values():
        _cosines(plan, model, outcome, reference)
    return list(outcomes.values())


def _round(  # noqa: PLR0917
    plan: Plan,
    model: BenchModel,
    peer: Engine,
    sets: dict[str, TextSet],
    outcome: Outcome,
    number: int,
) -> dict[str, Any]:
    for kind in peer.needs:
        if kind in model.missing:
            raise PeerError(f"no {kind} file could be made: {model.missing[kind]}")
    with start(plan, peer.env, peer.worker) as worker:
        about = {"model": model.for_worker(), "threads": plan.threads, "options": peer.options}
        loaded = worker.ask("load", **about)
        outcome.versions = loaded["versions"]
        found: dict[str, Any] = {"load_s": loaded["seconds"], "loaded_rss_mb": loaded["rss_mb"]}
        worker.ask("encode", texts=str(sets["warmup"].path), vectors=None)
        for name in SETS:
            vectors = vectors_file(plan, model, peer.name, name) if number == 0 else None
            found[name] = _measured(worker, sets[name], vectors)
        for name, count in _LATENCY.items():
            shown = {"texts": str(sets[name].path), "count": count // (4 if plan.quick else 1)}
            worker.ask("latency", **shown | {"count": 5})
            with watched(worker.pid) as load:
                latency = worker.ask("latency", **shown)
            found[f"latency_{name}"] = latency | {"load": load.facts()}
        return found


def _measured(worker: Worker, texts: TextSet, vectors: Path | None) -> dict[str, Any]:
    """One set encoded; again, at most twice, while others disturb the machine."""
    tries: list[dict[str, Any]] = []
    for _ in range(1 + _RETRIES):
        with watched(worker.pid) as load:
            found = worker.ask(
                "encode", texts=str(texts.path), vectors=str(vectors) if vectors else None
            )
        tries.append(found | {"load": load.facts()})
        if not load.disturbed:
            break
    best = min(tries, key=lambda t: t["load"]["share"] or 0.0)
    return best | {
        "texts_per_second": best["texts"] / best["seconds"],
        "tokens_per_second": sum(texts.lengths) / best["seconds"],
        "tries": len(tries),
    }


def vectors_file(plan: Plan, model: BenchModel, peer: str, name: str) -> Path:
    folder = plan.work / "vectors" / model.spec.id
    folder.mkdir(parents=True, exist_ok=True)
    safe = "".join(c if c.isalnum() else "-" for c in peer)
    return folder / f"{safe}.{name}.npy"


def _cosines(plan: Plan, model: BenchModel, outcome: Outcome, reference: str) -> None:
    import numpy as np

    for name in SETS:
        files = [vectors_file(plan, model, who, name) for who in (outcome.name, reference)]
        if not outcome.rounds or not all(file.is_file() for file in files):
            continue
        ours, theirs = (np.load(file).astype(np.float64) for file in files)
        if ours.shape != theirs.shape:
            continue
        found = (ours * theirs).sum(axis=1) / np.linalg.norm(ours, axis=1)
        found /= np.linalg.norm(theirs, axis=1)
        outcome.cosine[name] = {"min": float(found.min()), "mean": float(found.mean())}


def peak(plan: Plan) -> dict[str, Any]:
    """GFLOP/s of one large product on the same threads, now. Raises PeerError."""
    with start(plan, "ours", "gemm") as worker:
        versions = worker.ask("load", model={}, threads=plan.threads, options={})["versions"]
        with watched(worker.pid) as load:
            arguments = {"repeats": 5 if plan.quick else 15}
            found = worker.ask("call", name="peak", arguments=arguments)
    return found | {"versions": versions, "load": load.facts()}


def median(outcome: Outcome, name: str, key: str) -> float | None:
    """Over the rounds that nobody disturbed; over all where none was left alone."""
    rows = [found[name] for found in outcome.rounds if name in found]
    quiet = [row for row in rows if not row["load"]["disturbed"]]
    values = [row[key] for row in quiet or rows if row.get(key) is not None]
    return statistics.median(values) if values else None
