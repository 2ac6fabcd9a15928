from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_embed.models.artifact import Artifact
from cortex_embed.processes import alive
from tests.commands.shared import Shared, finish

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stub ends by SIGTERM")


@pytest.fixture
def shared(tmp_path: Path, tiny_mean: Artifact) -> Iterator[Shared]:
    world = Shared(tmp_path / "run", tiny_mean.directory)
    yield world
    world.run("stop", "--all")


def test_nothing_runs(shared: Shared) -> None:
    code, out, _ = shared.run("stop")
    assert code == 0
    assert out == "No background server of tiny-mean (fp32) is running.\n"
    code, out, _ = shared.run("stop", "--all")
    assert (code, out) == (0, "No background server is running.\n")


def test_it_stops_the_one_that_is_meant(shared: Shared, tiny_cls: Artifact) -> None:
    event, other = shared.ensure(), shared.ensure("--model", str(tiny_cls.directory))
    code, out, _ = shared.run("stop")
    assert code == 0
    assert out == f"Stopped tiny-mean (fp32), process {event['pid']}, {event['url']}.\n"
    assert not alive(event["pid"])
    assert alive(other["pid"])
    code, out, _ = shared.run("stop")
    assert "1 other(s) run: --all stops them." in out
    code, out, _ = shared.run("stop", "--all")
    assert f"process {other['pid']}" in out
    assert not alive(other["pid"])
    assert shared.names(".json") == shared.names(".ready") == []


def test_one_that_is_still_loading_is_stopped_too(shared: Shared) -> None:
    asking = shared.begin("ensure", STUB_DELAY="30")
    deadline = time.monotonic() + 20
    while not shared.names(".json"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    code, out, _ = shared.run("stop")
    assert code == 0
    assert "Stopped tiny-mean (fp32)" in out
    assert finish(asking)[0] == 128 + signal.SIGTERM


def test_a_process_that_has_the_number_by_chance_is_left_alone(shared: Shared) -> None:
    event = shared.ensure()
    os.kill(event["pid"], signal.SIGKILL)
    path = shared.runtime / shared.names(".json")[0]
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": stranger.pid}))
        code, out, _ = shared.run("stop", "--all")
        assert (code, out) == (0, "No background server is running.\n")
        assert stranger.poll() is None
        assert not path.exists()
        stranger.kill()


def test_one_that_does_not_end_in_time_is_named(shared: Shared) -> None:
    event = shared.ensure()
    os.kill(event["pid"], signal.SIGSTOP)
    try:
        code, out, err = shared.run("stop", "--wait", "200ms")
    finally:
        os.kill(event["pid"], signal.SIGCONT)
    assert (code, out) == (1, "")
    assert f"Process {event['pid']} has not ended after 0.2 s" in err
    assert "--wait" in err
