"""The Markdown that goes into the README, and what is printed: made from results.json alone.

It must never show a figure without the date and the processor, nor leave out a peer that
failed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_SETS = ("short", "passages", "mixed")
_REFERENCE = "sentence-transformers fp32"
_COLUMNS = (
    *_SETS, "of GEMM peak", "1 short text, ms", "1 passage, ms", "cosine, min / mean", "peak MB",
)  # fmt: skip
_TELLING = re.compile(r"(\w+\.)*\w*(Error|Exception|ERROR)\b|error:", re.ASCII)
_BLOCK = re.compile(r"(<!-- bench -->\n).*?(\n<!-- /bench -->)", re.DOTALL)


def markdown(results: dict[str, Any]) -> str:
    """Tables of engines and servers, and what they were measured with."""
    machine = results["machine"]
    peak = results["gemm_peak"]
    kind = "A QUICK run, not a result: " if results["quick"] else ""
    parts = [
        (
            f"{kind}{results['when'][:10]}, {machine['processor']}, {results['threads']} threads, "
            f"{machine['system']}, Python {machine['python']}. "
            f"{_rounds(results['rounds'])}; the same texts for all, at most "
            f"{results['max_tokens']} tokens. "
            f"GEMM peak, the most that one large product reached on ONNX Runtime: "
            f"{_figure(peak.get('fp32'))} GFLOP/s float32, {_figure(peak.get('int8'))} G/s int8. "
            f"`nox -s bench` makes this table."
        )
    ]
    for name, model in results["engines"].items():
        parts += ["", f"**{name}**, texts a second (× {_REFERENCE}):", ""]
        parts += _engines(model)
    if results.get("servers"):
        rounds = _rounds(max(len(s.get("rounds", ())) for s in results["servers"])).lower()
        title = f"**Servers** over loopback, requests a second (p50 / p99 ms), {rounds}:"
        parts += ["", title, ""]
        parts += _servers(results["servers"])
    parts += _guest(results.get("guest", {}))
    parts += _profile(results.get("profile", {}))
    parts += _failures(results)
    return "\n".join(parts)


def _rounds(count: int) -> str:
    return "One round" if count == 1 else f"Medians of {count} interleaved rounds"


def _engines(model: dict[str, Any]) -> list[str]:
    rows = model["rows"]
    base: dict[str, Any] = next((r for r in rows if r["name"] == _REFERENCE), {})
    lines = [
        f"| | {' | '.join(_COLUMNS)} |",
        "|---|" + "---:|" * len(_COLUMNS),
    ]
    for row in rows:
        if row.get("error"):
            continue
        cells = [row["name"]]
        for name in _SETS:
            rate = row["texts_per_second"][name]
            reference = base.get("texts_per_second", {}).get(name)
            times = f" ({rate / reference:.2f})" if rate and reference else ""
            cells.append(f"{_figure(rate)}{times}{'*' if row['disturbed'][name] else ''}")
        share = row["gemm_share"]
        cells.append("" if share is None else f"{100 * share:.0f} %")
        cells += [_figure(row["latency_ms"][name], 1) for name in ("short", "passages")]
        cosine = row["cosine"]
        cells.append(
            f"{_cosine(cosine['min'])} / {_cosine(cosine['mean'])}" if cosine else "unknown"
        )
        cells.append(_figure(row["peak_rss_mb"]))
        lines.append("| " + " | ".join(cells) + " |")
    if any(any(row["disturbed"].values()) for row in rows if not row.get("error")):
        lines += ["", "\\* other processes used more than 8 % of the processor in every round."]
    return lines + _chosen(rows)


def _chosen(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Which engine those rows of ours ran on that were not told."""
    found = [(row["name"], row.get("versions", {})) for row in rows]
    said = [
        f"{n}: {v['engine']} ({v['engine_reason']})" for n, v in found if v.get("engine_reason")
    ]
    return ["", f"Chosen engines: {'; '.join(said)}."] if said else []


def _servers(rows: Sequence[dict[str, Any]]) -> list[str]:
    scenarios = list(dict.fromkeys(name for row in rows for name in row["scenarios"]))
    lines = [f"| | {' | '.join(scenarios)} |", "|---|" + "---:|" * len(scenarios)]
    for row in rows:
        if row.get("error"):
            continue
        cells = [
            f"{_figure(s['requests_per_second'])} ({s['p50_ms']:.1f} / {s['p99_ms']:.1f})"
            for s in (row["scenarios"][name] for name in scenarios)
        ]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return lines


def _guest(guest: dict[str, Any]) -> list[str]:
    lines = []
    for name, found in guest.items():
        if "error" in found:
            continue
        lane, memory = found["lane"], found["memory"]
        text = (
            f"- {name}: one short text takes {lane['idle']['p50_ms']:.1f} ms (p50) when idle; "
            f"while a bulk job runs, {lane['during_bulk']['p50_ms']:.1f} (p50) and "
            f"{lane['during_bulk']['p99_ms']:.1f} ms (p99), and the bulk job keeps "
            f"{100 * lane['bulk_kept']:.0f} % of its rate. Peak memory under mixed texts: "
            f"{_figure(memory['peak_mb'])} MB, {_figure(memory['ready_mb'])} MB when ready."
        )
        if "soak" in memory:
            soak = memory["soak"]
            text += (
                f" Growth over the last half of {soak['minutes']:g} minutes: "
                f"{soak['growth_last_half_mb']:+.1f} MB."
            )
        lines.append(text)
    return ["", *lines] if lines else []


def _profile(profile: dict[str, Any]) -> list[str]:
    """The native engine's time by phase, a line a precision."""
    measured = {name: found for name, found in profile.items() if "error" not in found}
    if not measured:
        return []
    phases = list(next(iter(measured.values()))["phases"])
    columns = [*phases, "linear layers", "of GEMM peak"]
    lines = [
        "",
        (
            "**Where the native engine's time goes**, passages, share of its threads' time (`up` "
            "has the GELU in it; the linear layers are `qkv`, `output`, `up` and `down`):"
        ),
        "",
        f"| | {' | '.join(columns)} |",
        "|---|" + "---:|" * len(columns),
    ]
    for name, found in measured.items():
        cells = [f"{100 * found['phases'][phase]['share']:.0f} %" for phase in phases]
        cells.append(f"{100 * found['linear_share_of_time']:.0f} %")
        peak = found.get("linear_share_of_peak")
        cells.append("unknown" if peak is None else f"{100 * peak:.0f} %")
        lines.append(f"| {name}, {found['instruction_set']} | {' | '.join(cells)} |")
    return lines


def _failures(results: dict[str, Any]) -> list[str]:
    """Every peer without figures, in its own words."""
    found: dict[str, str] = {}
    for model in results["engines"].values():
        found |= {r["name"]: r["error"] for r in model["rows"] if r.get("error")}
    found |= {f"{r['name']} (server)": r["error"] for r in results.get("servers", ()) if r["error"]}
    for part in ("guest", "profile"):
        about = results.get(part, {})
        found |= {f"{n} ({part})": one["error"] for n, one in about.items() if "error" in one}
    if not found:
        return []
    lines = [f"- {name}: `{_one_line(error)}`" for name, error in found.items()]
    return ["", "Not measured:", "", *lines]


def _one_line(error: str) -> str:
    """The first line that says something, short enough for a list."""
    lines = [line.strip() for line in error.splitlines() if line.strip()]
    telling = [line for line in lines if _TELLING.match(line)] or lines
    return telling[0].replace("`", "'")[:200] if telling else "no message"


def _figure(value: float | None, digits: int = 0) -> str:
    if value is None:
        return "unknown"
    return f"{value:.{digits}f}" if value >= 100 or digits else f"{value:.3g}"


def _cosine(value: float) -> str:
    return f"{value:.6f}" if value < 0.9999995 else "1.000000"


def into_readme(readme: str, table: str) -> str:
    """`readme` with the block between the markers made anew. Raises ValueError without them."""
    made, count = _BLOCK.subn(lambda m: m[1] + table + m[2], readme)
    if count != 1:
        raise ValueError(f"README.md has {count} blocks marked <!-- bench -->; it must have one")
    return made
