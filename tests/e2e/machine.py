"""A machine without the model: a home, a hub on loopback that it asks, and the program.

Shared by the tests of downloads. It must never reach beyond loopback.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.process import Served, environment
from tests.hub import Hub, catalogue

REPO = "cortex-embed/tiny"
GRAPH = "onnx/model.onnx"


@dataclass
class Machine:
    """A home, a hub that it knows by HF_ENDPOINT, and the program."""

    exe: Sequence[str]
    hub: Hub
    home: Path
    more: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True)
        catalogue(self.home / "mine.toml", self.hub)
        self.more = {
            "HF_ENDPOINT": self.hub.url,
            "CORTEX_EMBED_CATALOGUE": str(self.home / "mine.toml"),
            "CORTEX_EMBED_STALL_TIMEOUT": "3s",
            "XDG_DATA_HOME": str(self.data.parent),
        } | self.more

    @property
    def data(self) -> Path:
        return self.home / "data" / "cortex-embed"

    @property
    def final(self) -> Path:
        return self.data / "models" / "tiny-hub"

    @property
    def environment(self) -> dict[str, str]:
        return environment(self.home) | self.more

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.exe, *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, code: int = 0) -> tuple[str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert process.returncode == code, f"{out}\n{err}"
        assert "Traceback" not in err
        return out, err

    def serve(self, *flags: str) -> Served:
        command = [*self.exe, "serve", "--port", "0", "--model", "tiny-hub", *flags]
        return Served(command, self.home, self.more)

    def files(self) -> list[str]:
        """All that there is in the data directory but the installed model."""
        return [
            str(path.relative_to(self.data))
            for path in self.data.rglob("*")
            if path != self.final and self.final not in path.parents and path != self.final.parent
        ]


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `holds`, or fail."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
