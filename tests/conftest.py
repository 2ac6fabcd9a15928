"""Fixtures that every test may use. It must never reach beyond loopback or the temp directory."""

from __future__ import annotations

import os

import pytest

from tests.models_fixtures import (  # noqa: F401 - fixtures are found by name
    bge_geometry,
    kernel_cls,
    kernel_mean,
    kernel_sets,
    kernels,
    minilm_artifact,
    minilm_sources,
    tiny_cls,
    tiny_mean,
)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the person who runs the tests reaches them."""
    for name in list(os.environ):
        if name.startswith("CORTEX_EMBED_") and name != "CORTEX_EMBED_EXE":
            monkeypatch.delenv(name)
