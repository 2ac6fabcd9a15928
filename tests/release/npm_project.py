"""A Node project with the packages in its node_modules, and the processes that it starts."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

import targets
from release import npm
from tests.e2e.process import TIMEOUT, environment

GONE = 5.0
"""Seconds that a server has to leave when its host is gone: 1 of grace, and a slow machine."""
START = """
import { start } from "cortex-embed";
const server = await start({ args: JSON.parse(process.argv[1]), stderr: "ignore" });
"""


@dataclass(frozen=True)
class Project:
    """A directory with the packages in node_modules."""

    root: Path
    home: Path

    @property
    def exe(self) -> Path:
        return self.root / "node_modules" / package() / "bin" / "cortex-embed"

    def node(self, code: str, *args: str, **variables: str) -> subprocess.Popen[str]:
        command = ["node", "--input-type=module", "-e", code, "--", *args]
        return self.popen(command, variables)

    def popen(
        self,
        command: Sequence[str],
        variables: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, cwd=self.root, env=environment(self.home) | dict(variables or {}),
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def cli(self, *args: str, **variables: str) -> subprocess.Popen[str]:
        command = self.root / "node_modules" / "cortex-embed" / "bin" / "cortex-embed.js"
        return self.popen(["node", str(command), *args], variables)

    def said(self, code: str, *args: str, **variables: str) -> Any:
        """What `code` logs as JSON; it must end by itself, and well."""
        status, out, err = ended(self.node(code, *args, **variables))
        assert status == 0, err
        return json.loads(out)

    def refusal(self, code: str, **variables: str) -> str:
        said = self.said(
            f"""import {{ binaryPath, start }} from "cortex-embed";
            const caught = (why) => console.log(JSON.stringify(why.message));
            try {{ {code} }} catch (why) {{ caught(why); }}""",
            **variables,
        )
        return str(said)


def package() -> str:
    return npm.package_name(targets.here(targets.load()))


def write_executable(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def gone(*pids: int) -> bool:
    deadline = time.monotonic() + GONE
    while any(map(psutil.pid_exists, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a process that ends by itself."""
    try:
        out, err = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        end(process)
        raise
    return process.returncode, out, err


def line_of(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=TIMEOUT)
