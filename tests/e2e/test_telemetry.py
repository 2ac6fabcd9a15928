"""Nothing leaves the machine, the runtime's own telemetry included."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.e2e.process import litter

if TYPE_CHECKING:
    from cortex_embed.models.store import Artifact

pytestmark = pytest.mark.e2e

_PATIENCE = 14.0  # onnxruntime 1.31 looks its collector up about ten seconds after loading


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_no_connection_and_no_file_of_the_runtimes_own(
    exe: list[str], tiny_mean: Artifact, tmp_path: Path
) -> None:
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/bin:/bin"}
    command = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o", str(trace), *exe]
    command += ["serve", "--port", "0", "--model", str(tiny_mean.directory)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        while "Model ready" not in server.stderr.readline():
            assert server.poll() is None
        time.sleep(_PATIENCE)
        for child in psutil.Process(server.pid).children():  # strace itself would only let go
            child.terminate()
        server.wait(30)
    assert litter(home) == []
    calls = trace.read_text()
    # A process may talk to itself: asyncio's wake-up is a socket pair without an address.
    assert not re.search(r"sin_addr|sin6_addr|AF_UNIX.*sun_path", calls), calls


def test_the_switch_is_set_before_the_runtime_is_loaded() -> None:
    code = (
        "from cortex_embed.providers.engine import newest_opset; newest_opset(); import os; "
        "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "1"
