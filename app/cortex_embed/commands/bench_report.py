"""What `bench` shows: an aligned table, JSON, and a chart as HTML or PNG.

The HTML is one file with an inline SVG: no library, nothing fetched. It must never round a
figure in the JSON, nor draw what was not measured.
"""

from __future__ import annotations

import html
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cortex_embed.commands.bench_window import Sample

_COLUMNS: tuple[tuple[str, Callable[[Sample], str]], ...] = (
    ("clients", lambda s: str(s.concurrency)),
    ("requests/s", lambda s: _rate(s.requests_per_second)),
    ("texts/s", lambda s: _rate(s.texts_per_second)),
    ("tokens/s", lambda s: "-" if s.tokens_per_second is None else _rate(s.tokens_per_second)),
    ("p50 ms", lambda s: f"{s.p50_ms:.2f}"),
    ("p95 ms", lambda s: f"{s.p95_ms:.2f}"),
    ("p99 ms", lambda s: f"{s.p99_ms:.2f}"),
    ("max ms", lambda s: f"{s.max_ms:.2f}"),
    ("requests", lambda s: str(s.requests)),
    ("refused", lambda s: str(s.refused)),
)
_LINES = (("p50", "p50_ms"), ("p95", "p95_ms"), ("p99", "p99_ms"))
_W, _H, _LEFT, _TOP, _BOTTOM = 420, 260, 64, 34, 42


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def table(samples: Sequence[Sample]) -> str:
    """The samples as aligned columns; `refused` only where any request was."""
    columns = [c for c in _COLUMNS if c[0] != "refused" or any(s.refused for s in samples)]
    cells = [[name for name, _ in columns]]
    cells += [[show(sample) for _, show in columns] for sample in samples]
    widths = [max(len(row[n]) for row in cells) for n in range(len(columns))]
    return "\n".join("  ".join(map(str.rjust, row, widths)) for row in cells)


def document(facts: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
    """What --json writes: `facts` about the run, and every figure unrounded."""
    return {"schema": 1, **facts, "results": [asdict(sample) for sample in samples]}


def write_json(path: Path, found: dict[str, Any]) -> None:
    _write(path, json.dumps(found, indent=2, ensure_ascii=False) + "\n", "--json")


def plot_kind(path: Path) -> str:
    """`html` or `png`. Raises UsageError, before anything is measured, where it cannot work."""
    kind = path.suffix.lower().removeprefix(".").replace("htm", "html").replace("htmll", "html")
    if kind not in {"html", "png"}:
        raise UsageError(f"--plot: {path} must end in .html or .png.")
    if kind == "png":
        try:
            import matplotlib  # type: ignore[import-not-found,unused-ignore]  # noqa: F401
        except ImportError:
            raise UsageError(
                "--plot: a PNG needs matplotlib, which is not installed here. Use a name that "
                "ends in .html, which needs nothing."
            ) from None
    return kind


def write_plot(path: Path, found: dict[str, Any]) -> None:
    """Raises OutputError."""
    if plot_kind(path) == "html":
        _write(path, page(found), "--plot")
        return
    try:
        _png(path, found)
    except OSError as why:
        raise OutputError(f"--plot: cannot write {path}: {why.strerror}.") from None


def _write(path: Path, text: str, flag: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as why:
        raise OutputError(f"{flag}: cannot write {path}: {why.strerror}.") from None


def _png(path: Path, found: dict[str, Any]) -> None:
    from matplotlib.figure import Figure  # type: ignore[import-not-found,unused-ignore]

    rows = found["results"]
    clients = [str(row["concurrency"]) for row in rows]
    figure = Figure(figsize=(9, 4), layout="constrained")
    rates, times = figure.subplots(1, 2)
    figure.suptitle(_title(found))
    rates.bar(clients, [row["texts_per_second"] for row in rows])
    rates.set(title="texts per second", xlabel="clients")
    for name, key in _LINES:
        times.plot(clients, [row[key] for row in rows], marker="o", label=name)
    times.set(title="latency, ms", xlabel="clients", yscale="log")
    times.legend()
    figure.savefig(path, dpi=150)


def _title(found: dict[str, Any]) -> str:
    return (
        f"{found['target']}: {found['texts']} texts, {found['batch']} a request, "
        f"{found['machine']['processor']}"
    )


_STYLE = """
:root { color-scheme: light dark; --a: #2563eb; --b: #d97706; --c: #dc2626; --grid: #8884 }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem }
h1 { font-size: 1.2rem } pre { overflow-x: auto } svg { max-width: 100%; height: auto }
svg text { font: 12px system-ui, sans-serif; fill: currentColor }
.grid { stroke: var(--grid) } .bar { fill: var(--a) }
.line { fill: none; stroke-width: 2 }
.p50 { stroke: var(--a); fill: var(--a) } .p95 { stroke: var(--b); fill: var(--b) }
.p99 { stroke: var(--c); fill: var(--c) } .line.p50, .line.p95, .line.p99 { fill: none }
svg text.p50, svg text.p95, svg text.p99 { stroke: none }
svg text.p50 { fill: var(--a) } svg text.p95 { fill: var(--b) } svg text.p99 { fill: var(--c) }
"""


def page(found: dict[str, Any]) -> str:
    """A self-contained HTML page: both charts, and the same JSON below them."""
    title = html.escape(_title(found))
    facts = html.escape(json.dumps(found, indent=2, ensure_ascii=False))
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{_STYLE}</style>\n<h1>{title}</h1>\n<p>{html.escape(str(found['when']))}</p>\n"
        f'<svg role="img" aria-label="{title}" viewBox="0 0 {2 * _W} {_H}" '
        f'width="{2 * _W}" height="{_H}">\n{_rates(found["results"])}\n'
        f'<g transform="translate({_W} 0)">{_latencies(found["results"])}</g>\n</svg>\n'
        f"<details><summary>All figures</summary><pre>{facts}</pre></details>\n</html>\n"
    )


def _rates(rows: Sequence[dict[str, Any]]) -> str:
    top = _nice(max(row["texts_per_second"] for row in rows))
    ticks = [top * n / 4 for n in range(5)]
    parts = [_frame("texts per second", rows, [(t / top, f"{t:g}") for t in ticks])]
    step = _step(rows)
    for n, row in enumerate(rows):
        height = row["texts_per_second"] / top * _plot_height()
        x, y = _LEFT + step * (n + 0.2), _H - _BOTTOM - height
        parts.append(
            f'<rect class="bar" x="{x:.1f}" y="{y:.1f}" width="{step * 0.6:.1f}" '
            f'height="{height:.1f}"><title>{row["texts_per_second"]:.1f} texts/s</title></rect>'
        )
    return "".join(parts)


def _latencies(rows: Sequence[dict[str, Any]]) -> str:
    values = [row[key] for row in rows for _, key in _LINES]
    low = math.floor(math.log10(max(min(values), 1e-3)))
    high = max(low + 1, math.ceil(math.log10(max(values))))
    span = high - low
    ticks = [((n - low) / span, f"{10.0**n:g}") for n in range(low, high + 1)]
    parts = [_frame("latency, ms", rows, ticks)]
    step = _step(rows)
    for place, (name, key) in enumerate(_LINES):
        points = []
        for n, row in enumerate(rows):
            share = (math.log10(max(row[key], 1e-3)) - low) / span
            points.append((_LEFT + step * (n + 0.5), _H - _BOTTOM - share * _plot_height()))
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line {name}" points="{path}"/>')
        for (x, y), row in zip(points, rows, strict=True):
            parts.append(
                f'<circle class="{name}" cx="{x:.1f}" cy="{y:.1f}" r="3">'
                f"<title>{name} {row[key]:.2f} ms</title></circle>"
            )
        parts.append(f'<text class="{name}" x="{_W - 130 + 36 * place}" y="18">{name}</text>')
    return "".join(parts)


def _frame(title: str, rows: Sequence[dict[str, Any]], ticks: Sequence[tuple[float, str]]) -> str:
    """Title, horizontal grid with its labels, and the clients below."""
    parts = [f'<text x="{_LEFT}" y="18">{title}</text>']
    for share, label in ticks:
        y = _H - _BOTTOM - share * _plot_height()
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_W - 16}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>')
    step = _step(rows)
    for n, row in enumerate(rows):
        x = _LEFT + step * (n + 0.5)
        parts.append(
            f'<text x="{x:.1f}" y="{_H - _BOTTOM + 16}" text-anchor="middle">'
            f"{row['concurrency']}</text>"
        )
    middle = (_LEFT + _W - 16) / 2
    parts.append(f'<text x="{middle}" y="{_H - 6}" text-anchor="middle">clients</text>')
    return "".join(parts)


def _step(rows: Sequence[object]) -> float:
    return (_W - 16 - _LEFT) / len(rows)


def _plot_height() -> int:
    return _H - _TOP - _BOTTOM


def _nice(value: float) -> float:
    """The next of 1, 2, 4, 8 times a power of ten that is at least `value`."""
    power = 10.0 ** math.floor(math.log10(max(value, 1e-9)))
    return next(m * power for m in (1, 2, 4, 8, 10) if m * power >= value)
