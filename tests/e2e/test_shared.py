"""`ensure` and `stop` with the program itself: one server, its token, its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed.processes import alive
from cortex_embed.waiting import settle
from tests.e2e.process import Client, environment

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals"),
]


@dataclass(frozen=True)
class User:
    """Who has a home of their own, and hence servers of their own."""

    exe: list[str]
    home: Path
    model: Path

    def begin(self, command: str, *flags: str) -> subprocess.Popen[str]:
        own = ["--model", str(self.model)]
        return subprocess.Popen(
            [*self.exe, command, *([] if "--model" in flags else own), *flags],
            env=environment(self.home) | {"CORTEX_EMBED_RUNTIME_DIR": str(self.home / "run")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, *flags: str) -> str:
        """What it prints."""
        out, err = self.begin(command, *flags).communicate(timeout=90)
        assert "Traceback" not in err, err
        return out or err


@pytest.fixture
def user(exe: list[str], tiny_mean: Artifact, tmp_path: Path) -> Iterator[User]:
    person = User(exe, tmp_path, tiny_mean.directory)
    yield person
    person.run("stop", "--all")
    assert list((tmp_path / "run").glob("*.ready")) == []
    assert list((tmp_path / "temp").glob("_MEI*")) == []


def test_one_server_for_ten_who_ask_at_once(user: User) -> None:
    asking = [user.begin("ensure") for _ in range(10)]
    answers = {process.communicate(timeout=90) for process in asking}
    assert {process.returncode for process in asking} == {0}, answers
    assert len(answers) == 1
    event = json.loads(answers.pop()[0])
    assert event["event"] == "ready"
    assert event["model"] == "tiny-mean"
    client = Client(event["port"], {"Authorization": f"Bearer {event['token']}"})
    assert len(client.embed(["a text"])[0]) == event["dimensions"]
    assert Client(event["port"]).post("/embed", {"texts": ["a"]}).status == 401
    assert user.run("stop").startswith("Stopped tiny-mean (fp32)")
    assert not alive(event["pid"])


def test_a_killed_server_is_replaced(user: User) -> None:
    first = json.loads(user.run("ensure"))
    os.kill(first["pid"], signal.SIGKILL)
    assert settle(first["pid"], 5)
    second = json.loads(user.run("ensure"))
    assert second["pid"] != first["pid"]
    assert second["token"] != first["token"]


def test_an_unused_server_ends_by_itself(user: User) -> None:
    event = json.loads(user.run("ensure", "--idle-exit", "500ms"))
    assert settle(event["pid"], 10)
    assert "No background server" in user.run("stop")


def test_a_server_that_cannot_start_says_why(user: User, tmp_path: Path) -> None:
    # What `ensure` itself looks at is intact; the weights are not.
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(user.model, copy)
    graph = copy / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:-1] + b"\0")
    asking = user.begin("ensure", "--model", str(copy))
    _, err = asking.communicate(timeout=90)
    assert asking.returncode == 3
    assert "model.onnx" in err
