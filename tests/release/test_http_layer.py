"""The HTTP layer's benchmark: small, against real servers."""

from __future__ import annotations

import pstats
import sys
from pathlib import Path

import pytest

from bench import http_layer
from bench.http_layer import Case, measure, profiled, report, top


@pytest.mark.skipif(sys.platform == "win32", reason="a server is stopped by a signal")
@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_a_row_has_both_servers(encoding: str, tmp_path: Path) -> None:
    row = measure(Case("/v1/embeddings", 2, encoding, 2), tmp_path, rounds=1, seconds=0.3)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:3] == [f"/v1/embeddings {encoding}", "2", "2"]
    own, bare, ratio = (float(cell.replace(",", "")) for cell in cells[3:6])
    assert own > 0
    assert bare > 0
    assert ratio == pytest.approx(own / bare, rel=0.1)
    assert row.count("|") == http_layer.HEAD.splitlines()[0].count("|")


@pytest.mark.skipif(sys.platform == "win32", reason="a server is stopped by a signal")
def test_headers_are_sent_and_told(tmp_path: Path) -> None:
    """The bare server reads none; ours refuses this one."""
    refused = Case("/embed", 1, "float", 1, headers=("Origin: http://a.example",))
    with pytest.raises(RuntimeError, match=r"with a request id: .*403"):
        measure(refused, tmp_path, rounds=1, seconds=0.3)


@pytest.mark.skipif(sys.platform == "win32", reason="a server is stopped by a signal")
def test_a_profile_names_our_functions(tmp_path: Path) -> None:
    profiled(Case("/embed", 2, "float", 2), tmp_path, seconds=0.3)
    figures = pstats.Stats(str(tmp_path / "profile"))
    names = {name for _, _, name in figures.stats}  # type: ignore[attr-defined]
    assert {"_answered", "read_body", "encode_response", "vectors_of"} <= names
    assert "self %" in top(figures, "a case").splitlines()[1]


@pytest.mark.skipif(sys.platform == "win32", reason="a server is stopped by a signal")
def test_an_answer_that_is_an_error_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="404"):
        measure(Case("/nothing", 1, "float", 1), tmp_path, rounds=1, seconds=0.3)


def test_ratios_are_taken_round_by_round() -> None:
    def sample(rate: float) -> dict[str, float]:
        return {"requests_per_second": rate, "p50_ms": 1.0}

    pairs = [(sample(50), sample(100)), (sample(5), sample(10)), (sample(60), sample(100))]
    row = report(Case("/embed", 1, "float", 1), pairs)
    assert "| 50 | 100 | 0.50 |" in row
    assert len(http_layer.CASES) == len(set(http_layer.CASES)) == 14
