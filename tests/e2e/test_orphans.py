"""One row of the orphan matrix (`build/orphans.py` has all of it) with the program itself."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import orphans

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="/proc"),
]


def test_a_killed_host_leaves_no_sidecar(
    exe: list[str], tiny_mean: Artifact, tmp_path: Path
) -> None:
    command = [*exe, "serve", "--sidecar", "--model", str(tiny_mean.directory)]
    one_file = orphans.is_one_file(command, tmp_path)
    outcomes = orphans.matrix(
        command, tmp_path, targets=["host"], moments=[0, 120, "ready"], one_file=one_file
    )
    assert [str(o) for o in outcomes if not o.passed] == []
    assert not any(o.absent for o in outcomes)
    assert list(tmp_path.glob("_MEI*")) == []
