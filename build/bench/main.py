"""The benchmark from end to end: environments, models, rounds, results.json, README.

It must never publish a quick or partial run unasked, and never stop for one peer: what fails
is a row with its error.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import engines, goals, guest, models, over_http, peers, report, texts
from bench.envs import ROOT, PeerError
from bench.machine import watched
from cortex_embed.kernels import PRECISIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bench.engines import Outcome, Plan
    from bench.models import BenchModel
    from bench.over_http import Served

PARTS = ("engines", "profile", "http", "guest")
_MODELS = (models.MINILM, models.BGE)


def main(arguments: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(arguments)
    if args.publish:
        _publish(report.markdown(json.loads(args.publish.read_text(encoding="utf-8"))))
        return 0
    work = args.work.resolve()
    plan = engines.Plan(
        work=work,
        envs=work / "envs",
        threads=args.threads,
        rounds=args.rounds or (1 if args.quick else 5),
        quick=args.quick,
    )
    complete = not (args.quick or args.only or args.parts != PARTS or args.models != _MODELS)
    results = measure(plan, args)
    results["complete"] = complete
    out = work / ("results.json" if complete else "partial.json")
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    table = report.markdown(results)
    print("\n" + table + "\n")
    for goal in results["goals"]:
        value = "unknown" if goal["value"] is None else f"{goal['value']:.4g}"
        sign = ">=" if goal["at_least"] else "<="
        print(f"{goal['verdict']:8} {goal['what']}: {value} (wanted {sign} {goal['bound']:g})")
    print(f"\nWrote {out}")
    if complete:
        _publish(table)
    else:
        print(f"README.md is left alone: only a full run is published (or --publish {out}).")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure cortex-embed against its peers.")
    add = parser.add_argument
    add("--work", type=Path, default=ROOT / "dist" / "bench", metavar="DIR")
    add("--threads", type=int, default=2, metavar="N", help="for every peer (default: 2)")
    add("--rounds", type=int, metavar="N", help="interleaved rounds (default: 5, quick 1)")
    add("--quick", action="store_true", help="few texts, short loads: does everything work?")
    add("--only", action="append", default=[], metavar="NAME", help="peers with NAME in theirs")
    add("--parts", type=_names(PARTS), default=PARTS, metavar="P,…", help=", ".join(PARTS))
    add("--models", type=_names(_MODELS), default=_MODELS, metavar="M,…", help=", ".join(_MODELS))
    add("--soak", type=float, metavar="MINUTES", help="length of the soak (default: 20, quick 0.3)")
    add(
        "--publish",
        type=Path,
        metavar="FILE",
        help="measure nothing; write README.md's table from the results in FILE",
    )
    return parser


def _names(known: tuple[str, ...]) -> Any:
    def parse(raw: str) -> tuple[str, ...]:
        chosen = tuple(raw.split(","))
        if not set(chosen) <= set(known):
            raise argparse.ArgumentTypeError(f"must be of {', '.join(known)}")
        return chosen

    return parse


def measure(plan: Plan, args: argparse.Namespace) -> dict[str, Any]:
    """Everything asked for, as one JSON object."""
    from cortex_embed import __version__
    from cortex_embed.commands.bench_machine import machine

    chosen, servers = peers.engines(args.only), peers.servers(args.only)
    wanted = {kind for engine in chosen for kind in engine.needs if "engines" in args.parts}
    if "http" in args.parts:
        wanted |= {kind for server in servers for kind in server.needs}
    results: dict[str, Any] = {
        "schema": 1,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "quick": plan.quick,
        "threads": plan.threads,
        "rounds": plan.rounds,
        "max_tokens": models.MAX_TOKENS,
        "machine": machine(),
        "engines": {},
    }
    made = {name: models.make(name, plan.work, plan.envs, wanted=wanted) for name in args.models}
    first = made[args.models[0]]
    sizes = texts.QUICK if plan.quick else texts.FULL
    sets = texts.make(plan.work / "texts", first.hf / "tokenizer.json", sizes, models.MAX_TOKENS)
    results["texts"] = {
        name: {"texts": len(s.texts), "tokens": sum(s.lengths), "sha256": s.sha256}
        for name, s in sets.items()
    }
    with watched() as load:
        _fill(plan, args, results, made, sets, chosen, servers)
    results["load"] = load.facts()
    return results


def _fill(  # noqa: PLR0917
    plan: Plan,
    args: argparse.Namespace,
    results: dict[str, Any],
    made: dict[str, BenchModel],
    sets: dict[str, texts.TextSet],
    chosen: list[peers.Engine],
    servers: list[peers.Server],
) -> None:
    """Measure the parts asked for, the processor's limit between them; then draw the ratios."""
    peaks = [_peak(plan)]
    compared: dict[str, list[Outcome]] = {}
    served: list[Served] = []
    first = made[args.models[0]]
    if "engines" in args.parts:
        for name, model in made.items():
            compared[name] = engines.compare(plan, model, chosen, sets)
            peaks.append(_peak(plan))
    if "profile" in args.parts:
        results["profile"] = {p: _profile(plan, first, sets, p) for p in PRECISIONS}
        peaks.append(_peak(plan))
    if "http" in args.parts:
        reference = next(e.name for e in chosen if e.reference)
        served = over_http.compare(plan, first, servers, sets, reference)
        results["servers"] = [_server_row(s) for s in served]
    if "guest" in args.parts:
        minutes = args.soak if args.soak is not None else (0.3 if plan.quick else 20.0)
        results["guest"] = guest.examine(plan, first, servers, sets, minutes)
    results["gemm_peaks"] = peaks
    # A limit is the most that was ever reached, not what was typical on a busy machine.
    peak = {k: max((p[k] for p in peaks if k in p), default=None) for k in ("fp32", "int8")}
    results["gemm_peak"] = peak
    for precision, found in results.get("profile", {}).items():
        # ONNX Runtime has no product of shorts to measure: int16 stands beside no peak.
        if peak.get(precision) and found.get("linear_gflops"):
            found["linear_share_of_peak"] = found["linear_gflops"] / peak[precision]
    for name, outcomes in compared.items():
        rows = [_engine_row(o, made[name], sets, peak) for o in outcomes]
        results["engines"][name] = {"rows": rows, "outcomes": [asdict(o) for o in outcomes]}
    results["goals"] = [goal.facts() for goal in _goals(args, results, compared, served)]


def _goals(
    args: argparse.Namespace,
    results: dict[str, Any],
    compared: dict[str, list[Outcome]],
    served: list[Served],
) -> Iterator[goals.Goal]:
    for name, outcomes in compared.items():
        for goal in goals.of_engines(outcomes):
            yield replace(goal, what=f"{name}: {goal.what}")
    if "profile" in args.parts:
        yield from goals.of_peak(results)
    yield from goals.of_servers(served)
    yield from goals.of_guest(results.get("guest", {}))


def _peak(plan: Plan) -> dict[str, Any]:
    try:
        return engines.peak(plan)
    except PeerError as why:
        return {"error": str(why)}


def _profile(
    plan: Plan, model: BenchModel, sets: dict[str, texts.TextSet], precision: str
) -> dict[str, Any]:
    """Where the native engine's time goes, by phase, on passages."""
    try:
        with engines.start(plan, "ours", "profile_ours") as worker:
            options = {"precision": precision}
            worker.ask("load", model=model.for_worker(), threads=plan.threads, options=options)
            arguments = {"texts": str(sets["passages"].path)}
            with watched(worker.pid) as load:
                found = worker.ask("call", name="profile", arguments=arguments)
            return found | {"load": load.facts()}
    except PeerError as why:
        return {"error": str(why)}


def _engine_row(
    outcome: Outcome, model: BenchModel, sets: dict[str, texts.TextSet], peak: dict[str, Any]
) -> dict[str, Any]:
    """One line of the table.

    The share of the peak counts every operation of the encoder, and stands beside those peers
    only whose precision the peak was measured in.
    """
    if not outcome.rounds:
        return {"name": outcome.name, "error": outcome.error or "never measured"}
    rate = {n: engines.median(outcome, n, "texts_per_second") for n in texts.SETS}
    share = None
    limit = peak.get(next((p for p in PRECISIONS if p in outcome.name), "fp32"))
    if rate["passages"] and limit and "bf16" not in outcome.name:
        lengths = sets["passages"].lengths
        share = rate["passages"] * sum(model.flops(lengths)) / len(lengths) / 1e9 / limit
    cosines = outcome.cosine.values()
    return {
        "name": outcome.name,
        "error": outcome.error,
        "versions": outcome.versions,
        "texts_per_second": rate,
        "disturbed": {
            n: all(r[n]["load"]["disturbed"] for r in outcome.rounds) for n in texts.SETS
        },
        "gemm_share": share,
        "latency_ms": {
            n: engines.median(outcome, f"latency_{n}", "p50_ms") for n in ("short", "passages")
        },
        "cosine": {"min": min(c["min"] for c in cosines), "mean": min(c["mean"] for c in cosines)}
        if cosines
        else None,
        "peak_rss_mb": engines.median(outcome, "mixed", "peak_rss_mb"),
    }


def _server_row(served: Served) -> dict[str, Any]:
    keys = ("requests_per_second", "texts_per_second", "p50_ms", "p99_ms")
    names = [s.name for s in over_http.SCENARIOS] if served.rounds else []
    return asdict(served) | {
        "scenarios": {n: {k: over_http.median(served, n, k) for k in keys} for n in names},
    }


def _publish(table: str) -> None:
    readme = ROOT / "README.md"
    try:
        made = report.into_readme(readme.read_text(encoding="utf-8"), table)
    except ValueError as why:
        print(f"README.md is left alone: {why}", file=sys.stderr)
        return
    readme.write_text(made, encoding="utf-8")
    print("Wrote the table of README.md")
