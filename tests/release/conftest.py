"""What several tests of releases share: tiny models of every family besides BERT, and a release."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from export_onnx import export
from make_families import TINY, make_family
from tests.release import fake_release
from tests.release.fake_release import Release

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact

MEASURED = ("tiny-xlm-roberta", "tiny-mpnet", "tiny-nomic-bert")
"""Exported in int8 too: one of each set of blocks, since calibration takes seconds."""


@pytest.fixture(scope="session")
def family_artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifact]:
    """The artifact of a tiny model by its id in TINY. Read only."""
    made: dict[str, Artifact] = {}

    def artifact(model_id: str) -> Artifact:
        if model_id not in made:
            base = tmp_path_factory.mktemp(model_id)
            source = make_family(base / "source", model_id)
            precisions = ["fp32", "int8"] if model_id in MEASURED else ["fp32"]
            out = base / model_id
            made[model_id] = export(source, TINY[model_id], out, precisions=precisions)
        return made[model_id]

    return artifact


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Read only."""
    return fake_release.make(tmp_path_factory.mktemp("good"))


@pytest.fixture
def release(good: Release, tmp_path: Path) -> Release:
    """A copy, to be mutated."""
    shutil.copytree(good.root.parent, tmp_path, dirs_exist_ok=True)
    return Release(tmp_path / "tree", tmp_path / "assets", good.table)
