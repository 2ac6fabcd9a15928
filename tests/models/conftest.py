"""A world with a hub on loopback, for whatever fetches a model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_embed.models import hub as hub_module
from tests.hub import repository, running
from tests.models.world import REPO, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    from huggingface_hub import constants

    for name in list(os.environ):
        if name.startswith("HF_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(hub_module, "_PAUSES", (0.01, 0.02, 0.03))
    with running() as hub:
        hub.repositories[REPO] = repository()
        # Read from HF_ENDPOINT and HF_HOME once, when the library is imported.
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        yield World(hub, tmp_path)
