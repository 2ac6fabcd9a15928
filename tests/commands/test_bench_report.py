"""What `bench` shows: charts and their limits. The table is in test_bench.py."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

from cortex_embed.commands import bench_report, bench_window
from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path


def test_a_png_without_matplotlib_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"ends in \.html"):
        bench_report.plot_kind(tmp_path / "x.png")


def test_the_chart_is_one_wellformed_file(tmp_path: Path) -> None:
    sample = bench_window.Sample(8, 1.0, 10, 0, 10.0, 10.0, None, 1.0, 2.0, 30.0, 40.0)
    machine = {"processor": "<b>&", "cores": 2}
    facts = {"target": "t", "texts": "short", "batch": 1, "machine": machine, "when": "now"}
    chart = tmp_path / "c.html"
    bench_report.write_plot(chart, bench_report.document(facts, [sample, sample]))
    page = chart.read_text(encoding="utf-8")
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    assert len(ElementTree.fromstring(svg).findall(".//rect")) == 2  # noqa: S314 - our own
    assert "http" not in page.replace("http-equiv", "")
    assert "<b>&" not in page
