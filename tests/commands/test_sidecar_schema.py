from __future__ import annotations

import subprocess
import sys

import pytest

import docs  # build/docs.py
from cortex_embed import cli


def test_the_command_prints_what_the_types_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["sidecar-schema"]) == 0
    assert capsys.readouterr().out == docs.event_schema()


def test_it_imports_nothing_that_costs() -> None:
    code = (
        "import sys\n"
        "from cortex_embed import cli\n"
        "cli.run(['sidecar-schema'])\n"
        "print('\\n', *sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = {name.partition(".")[0] for name in done.stdout.splitlines()[-1].split()}
    assert "cortex_embed" in loaded
    assert not loaded & {"asyncio", "aiohttp", "numpy", "onnxruntime", "msgspec", "logging"}
