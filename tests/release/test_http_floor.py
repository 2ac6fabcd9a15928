"""The least that HTTP can cost: small, against real servers."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from bench import http_floor

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


@pytest.mark.skipif(sys.platform == "win32", reason="a server is stopped by a signal")
def test_every_kind_is_measured_and_compared_with_none(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    few = ["--precision", "fp32", "--clients", "2", "--rounds", "1", "--seconds", "0.3"]
    assert http_floor.main([str(tiny_mean.directory), *few]) == 0
    rows = [line.strip("|").split("|") for line in capsys.readouterr().out.splitlines()[4:]]
    kinds = [row[0].strip() for row in rows]
    assert kinds == [http_floor.NONE, http_floor.BYTES, http_floor.AIOHTTP, http_floor.OURS]
    rates = [float(row[1].replace(",", "")) for row in rows]
    assert min(rates) > 0
    for row, rate in zip(rows, rates, strict=True):
        assert float(row[2]) == pytest.approx(rate / rates[0], abs=0.02)
