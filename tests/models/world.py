"""A hub, a data directory and a listener in one: what the tests of `models/obtain.py` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cortex_embed.errors import DownloadError
from cortex_embed.models.artifact import Artifact
from cortex_embed.models.catalogue import CatalogueEntry, find
from cortex_embed.models.obtain import Progress, obtain
from tests.hub import Hub, catalogue

REPO = "cortex-embed/tiny"
GRAPH = "onnx/model.onnx"


@dataclass
class Listener:
    lines: list[str] = field(default_factory=list)
    steps: list[Progress] = field(default_factory=list)
    on_step: Callable[[], None] = lambda: None

    def said(self, line: str) -> None:
        self.lines.append(line)

    def progressed(self, progress: Progress) -> None:
        self.steps.append(progress)
        self.on_step()

    def __contains__(self, words: str) -> bool:
        return any(words in line for line in self.lines)


@dataclass
class World:
    """A hub, an empty data directory, an empty cache of Hugging Face's, no pauses."""

    hub: Hub
    base: Path
    said: Listener = field(default_factory=Listener)

    @property
    def root(self) -> Path:
        return self.base / "data"

    @property
    def final(self) -> Path:
        return self.root / "tiny-hub"

    def entry(self, **how: Any) -> CatalogueEntry:
        found = find("tiny-hub", catalogue(self.base / "mine.toml", self.hub, **how))
        assert found is not None
        return found

    def obtain(self, entry: CatalogueEntry | None = None, **how: Any) -> Artifact:
        given = {"offline": False, "stall_timeout": 1.0, "accept_terms": False} | how
        return obtain(entry or self.entry(), self.root, report=self.said, **given)

    def fails(self, code: str, *words: str, entry: CatalogueEntry | None = None, **how: Any) -> str:
        with pytest.raises(DownloadError) as caught:
            self.obtain(entry, **how)
        assert caught.value.code == f"download_{code}"
        assert caught.value.exit_code == 10
        for one in words:
            assert one in caught.value.message
        assert not self.final.exists()
        return caught.value.message

    def litter(self) -> list[str]:
        return [str(p.relative_to(self.root)) for p in self.root.rglob("*") if p != self.final
                and self.final not in p.parents]  # fmt: skip
