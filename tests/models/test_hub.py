"""One file at a time from a hub; `test_obtain.py` has the failures, by all that depends on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cortex_embed import config
from tests.hub import REVISION, Hub, repository, running

PROGRAM = """
import sys
from pathlib import Path
from cortex_embed.models.catalogue import SourceFile
from cortex_embed.models.hub import Hub, cached
hub = Hub(stall_timeout=5.0, say=print)
for path in ("onnx/model.onnx", "config.json"):
    file = SourceFile(path, None, "", 0, "cortex-embed/tiny", sys.argv[1])
    assert cached(file) is None
    remote = hub.look(file)
    part = Path(sys.argv[2]) / "part"
    part.write_bytes(b"")
    told = []
    hub.fetch(file, part, remote.size, told.append)
    assert told[-1] == part.stat().st_size == remote.size
    print(remote.size, remote.sha256)
hub.close()
print(hub.host, *[m for m in sys.modules if m in ("hf_xet", "torch", "fsspec", "requests")])
"""


@pytest.fixture
def hub() -> object:
    with running() as one:
        one.repositories["cortex-embed/tiny"] = repository()
        yield one


def test_by_the_environment_alone(hub: Hub, tmp_path: Path) -> None:
    """As a user has it: HF_ENDPOINT and HF_TOKEN, and a process of its own."""
    more = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, REVISION, str(tmp_path)],
        env=config.child_environment(more),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    large, small, last = done.stdout.splitlines()
    files = hub.repositories["cortex-embed/tiny"]
    size, sha256 = large.split()
    assert int(size) == len(files["onnx/model.onnx"])
    assert len(sha256) == 64
    assert small == f"{len(files['config.json'])} "  # the hub states git's hash for small ones
    assert last == hub.url.removeprefix("http://")
    # Nobody is told more than what is fetched by what.
    agents = {request.headers.get("user-agent", "") for request in hub.requests}
    assert all(agent.startswith("cortex-embed/") for agent in agents)
    assert {request.path.split("/")[1] for request in hub.requests} <= {"cortex-embed", "api"}
    assert all("resolve" in r.path or "lfs" in r.path for r in hub.requests)
    assert not (tmp_path / "hf").exists()
    assert "hf_secret" not in done.stdout + done.stderr
