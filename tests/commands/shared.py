"""`ensure` and `stop` as tests call them: a stub in place of `serve`, in a directory of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STUB = Path(__file__).with_name("serve_stub.py")
_DRIVER = (
    "import sys; from cortex_embed.commands import ensure; "
    f"ensure._program = lambda: [sys.executable, {str(STUB)!r}]; "
    "from cortex_embed.cli import main; main()"
)


@dataclass(frozen=True)
class Shared:
    """One user's world. `env` goes to every process, and hence to the stub."""

    runtime: Path
    model: Path

    def begin(self, command: str, *flags: str, **env: str) -> subprocess.Popen[str]:
        where = ["--runtime-dir", str(self.runtime)]
        if "--model" not in flags:
            where += ["--model", str(self.model)]
        return subprocess.Popen(
            [sys.executable, "-c", _DRIVER, command, *where, *flags],
            env=os.environ | {"STUB_STARTS": str(self.starts_file)} | env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *flags: str, **env: str) -> tuple[int, str, str]:
        """Exit code, stdout, stderr."""
        return finish(self.begin(command, *flags, **env))

    def ensure(self, *flags: str, **env: str) -> dict[str, Any]:
        code, out, err = self.run("ensure", *flags, **env)
        assert code == 0, err
        assert out.count("\n") == 1
        event: dict[str, Any] = json.loads(out)
        return event

    @property
    def starts_file(self) -> Path:
        return self.runtime.with_name("starts")

    @property
    def starts(self) -> list[str]:
        """The command line of every server that was started."""
        return self.starts_file.read_text().splitlines() if self.starts_file.exists() else []

    def names(self, suffix: str) -> list[str]:
        return sorted(p.name for p in self.runtime.glob(f"*{suffix}"))


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    assert "Traceback" not in err, err
    return process.returncode, out, err
