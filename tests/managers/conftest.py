"""Jobs as the command line makes them, and a stand-in for a manager's tool."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cortex_embed import cli
from cortex_embed.managers.job import Job, job_of

MakeJob = Callable[..., Job]
PROGRAM = ("/opt/the program/cortex-embed",)


def make_job(*words: str, program: tuple[str, ...] = PROGRAM) -> Job:
    """The job of `service print` with these words."""
    parser = cli.build_parser(only="service")
    return job_of(parser.parse_args(["service", "print", *words]), program)


@dataclass(frozen=True)
class Tool:
    """A program in PATH that notes how it was called and answers as `answers` says.

    Its lines are `PATTERN) COMMANDS;;` of a shell's `case` over the whole call.
    """

    calls_file: Path
    directory: Path

    def answer(self, name: str, *answers: str) -> None:
        script = self.directory / name
        cases = "\n".join(answers)
        script.write_text(
            f'#!/bin/sh\necho "{name} $*" >> "{self.calls_file}"\n'
            f'case "$*" in\n{cases}\n*) ;;\nesac\n',
            encoding="utf-8",
        )
        script.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    if sys.platform == "win32":
        pytest.skip("the stand-in is a shell script")
    directory = tmp_path / "tools"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:/usr/bin:/bin")
    return Tool(tmp_path / "calls", directory)
