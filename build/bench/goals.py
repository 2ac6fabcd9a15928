"""What the benchmark must show, checked against what it did show.

The bounds are the project's own; a figure that is missing, or was taken while others used the
machine, is never a pass. It must never be tuned to a result.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bench import engines, over_http
from bench.texts import SETS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.engines import Outcome
    from bench.over_http import Served

_ST = "sentence-transformers fp32"
_C64, _C1 = "64 clients, 1 short text", "1 client, 1 short text"


@dataclass(frozen=True, slots=True)
class Goal:
    """`value` must be at least `bound` (or at most it); None is unknown."""

    what: str
    value: float | None
    bound: float
    at_least: bool = True
    disturbed: bool = False
    """Whether others used the machine while any figure in it was taken, in every round."""

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "unknown"
        if self.disturbed:
            return "unsure"
        met = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "met" if met else "missed"

    def facts(self) -> dict[str, Any]:
        return asdict(self) | {"verdict": self.verdict}


def _ratio(over: float | None, under: float | None) -> float | None:
    return over / under if over and under else None


def of_engines(outcomes: Sequence[Outcome]) -> Iterator[Goal]:
    """Ratios of texts a second, each within one run."""
    by_name = {outcome.name: outcome for outcome in outcomes}
    fp32, int8 = "cortex-embed fp32", "cortex-embed int8"
    # Their vectors are the authors' to a millionth, so they have the same bounds.
    exact = {name: f"cortex-embed {name}" for name in ("fp32", "int16")}

    def ahead(what: str, who: str, others: str, name: str, bound: float) -> Goal:
        """`who` against the fastest peer whose name begins with `others`."""
        rates = {
            one: engines.median(outcome, name, "texts_per_second") or 0.0
            for one, outcome in by_name.items()
            if one.startswith(others)
        }
        other = max(rates, key=lambda one: rates[one], default=others)
        ours = engines.median(by_name[who], name, "texts_per_second") if who in by_name else None
        disturbed = any(_disturbed(by_name[w], name) for w in (who, other) if w in by_name)
        return Goal(what, _ratio(ours, rates.get(other)), bound, disturbed=disturbed)

    for short, who in exact.items():
        for name, bound in zip(SETS, (1.5, 1.5, 2.0), strict=True):
            yield ahead(f"{short}, {name}: x {_ST}", who, _ST, name, bound)
        for name in SETS:
            better = f"{short}, {name}: x OpenVINO f32 (its better setting)"
            yield ahead(better, who, "OpenVINO f32", name, 1.25)
        lowest = [c["min"] for c in by_name[who].cosine.values()] if who in by_name else []
        yield Goal(f"{short}, lowest cosine", min(lowest, default=None), 0.999999)
    yield _alone(by_name.get(fp32), by_name.get("onnxruntime, plain export"))
    for name, bound in zip(SETS, (5.0, 4.0, 5.0), strict=True):
        yield ahead(f"int8, {name}: x {_ST}", int8, _ST, name, bound)
    for name in SETS:
        better = f"int8, {name}: x OpenVINO bf16 (its better setting)"
        yield ahead(better, int8, "OpenVINO bf16", name, 1.3)
    means = [c["mean"] for c in by_name[int8].cosine.values()] if int8 in by_name else []
    yield Goal("int8, lowest mean cosine of a set", min(means, default=None), 0.9985)


def _alone(ours: Outcome | None, theirs: Outcome | None) -> Goal:
    both = [one for one in (ours, theirs) if one is not None]
    times = [engines.median(one, "latency_short", "p50_ms") for one in both]
    return Goal(
        "fp32, one short text: x plain ONNX Runtime's time",
        _ratio(*times) if len(times) == 2 else None,
        1.0,
        at_least=False,
        disturbed=any(_disturbed(one, "latency_short") for one in both),
    )


def _disturbed(outcome: Outcome, name: str) -> bool:
    rows = [found[name] for found in outcome.rounds if name in found]
    return bool(rows) and all(row["load"]["disturbed"] for row in rows)


def of_servers(served: Sequence[Served]) -> Iterator[Goal]:
    """HTTP against in-process, and against other servers."""
    by_name = {one.name: one for one in served}
    for who in (name for name in by_name if name.startswith("cortex-embed")):
        rounds = by_name[who].rounds
        for kind in ("bulk", "64 clients"):
            shares = [
                row[_C64]["texts_per_second"] / row["in process"][kind]["texts_per_second"]
                for row in rounds
            ]
            what = f"{who}: 64 clients, of in-process with {kind}"
            yield Goal(what, _median(shares), 0.85, disturbed=_busy(rounds, _C64))
        times = [row[_C1]["p50_ms"] / row["in process"]["1 clients"]["p50_ms"] for row in rounds]
        what = f"{who}: 1 client, p50 x in-process"
        yield Goal(what, _median(times), 1.3, at_least=False, disturbed=_busy(rounds, _C1))
    for scenario, peer, bound in (
        (_C64, "infinity fp32", 3.0),
        (_C64, "llama-cpp-python fp32", 2.0),
        (_C1, "infinity fp32", 1.0),
        (_C1, "llama-cpp-python fp32", 1.0),
    ):
        both = [by_name[who] for who in ("cortex-embed fp32", peer) if who in by_name]
        rates = [over_http.median(one, scenario, "requests_per_second") for one in both]
        yield Goal(
            f"fp32, {scenario}: x {peer}",
            _ratio(*rates) if len(rates) == 2 else None,
            bound,
            disturbed=any(_busy(one.rounds, scenario) for one in both),
        )


def _median(values: Sequence[float]) -> float | None:
    return statistics.median(values) if values else None


def _busy(rounds: Sequence[dict[str, Any]], scenario: str) -> bool:
    rows = [row[scenario] for row in rounds if scenario in row]
    return bool(rows) and all(row["load"]["disturbed"] for row in rows)


def of_guest(guest: dict[str, Any]) -> Iterator[Goal]:
    """Query lane and memory."""
    for who, found in guest.items():
        lane, memory = found.get("lane", {}), found.get("memory", {})
        bound = 250.0 if "int8" in who else 400.0
        growth = memory.get("soak", {}).get("growth_last_half_mb")
        busy = bool(lane.get("load", {}).get("disturbed"))
        what = f"{who}: query p99 under bulk x idle p50"
        yield Goal(what, lane.get("p99_over_idle_p50"), 10.0, at_least=False, disturbed=busy)
        what = f"{who}: bulk kept while queries run"
        yield Goal(what, lane.get("bulk_kept"), 0.85, disturbed=busy)
        yield Goal(f"{who}: peak RSS, mixed load, MB", memory.get("peak_mb"), bound, False)
        yield Goal(f"{who}: growth, last half of the soak, MB", growth, 10.0, False)


def of_peak(results: dict[str, Any]) -> Iterator[Goal]:
    """The native engine's linear layers, GELU included, against the most that a large product
    reached in this run."""
    found = results.get("profile", {}).get("fp32", {})
    loads = [peak["load"] for peak in results["gemm_peaks"] if "load" in peak]
    disturbed = all(load["disturbed"] for load in loads) or bool(
        found.get("load", {}).get("disturbed")
    )
    what = "fp32, passages: linear layers, of the sgemm peak"
    yield Goal(what, found.get("linear_share_of_peak"), 0.85, disturbed=disturbed)
