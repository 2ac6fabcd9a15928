"""A host and its sidecar: events, token, neglect, death. The README's hosts run as they stand."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.hosting import Sidecar, ask, gone, program
from tests.e2e.process import environment, litter
from tests.events_schema import checked

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes, descriptors and signals"),
]
Start = Callable[..., Sidecar]
README = Path(__file__).resolve().parents[2] / "README.md"
REQUEST = {"texts": ["hello world"]}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    place = tmp_path / "home"
    place.mkdir()
    return place


@pytest.fixture
def start(exe: list[str], home: Path, tiny_mean: Artifact) -> Iterator[Start]:
    """`start(*flags, **how)`: a server that is told what to do by flags alone."""
    started: list[Sidecar] = []

    def one(*flags: str, model: Path = tiny_mean.directory, **how: Any) -> Sidecar:
        started.append(Sidecar([*exe, "serve", "--model", str(model), *flags], home, **how))
        return started[-1]

    yield one
    for sidecar in started:
        sidecar.close()
    assert litter(home) == []
    for sidecar in started:
        assert b"Traceback" not in sidecar.stderr


def embedded(event: dict[str, Any]) -> list[float]:
    reply = ask(event, "POST", "/embed", REQUEST)
    assert reply.status == 200, reply.body
    vector: list[float] = reply.json["embeddings"][0]
    return vector


def test_a_whole_life(start: Start, tiny_mean: Artifact) -> None:
    sidecar = start("--sidecar")
    ready = sidecar.until("ready")
    names = [event["event"] for event in sidecar.events]
    assert names == ["listening", "progress", "ready"]
    assert ready["host"] == "127.0.0.1"
    assert ready["url"] == f"http://127.0.0.1:{ready['port']}"
    spec = tiny_mean.spec
    assert (ready["model"], ready["dimensions"]) == (spec.id, spec.dimensions)
    assert (ready["max_tokens"], ready["precision"]) == (spec.max_tokens, "fp32")
    listening = sidecar.events[0]
    assert {key: ready[key] for key in listening if key != "event"} == {
        key: listening[key] for key in listening if key != "event"
    }
    assert len(embedded(ready)) == spec.dimensions
    stranger = {key: ready[key] for key in ("host", "port")}
    for odd in (stranger, {**stranger, "token": "x" * len(ready["token"])}):
        for path in ("/embed", "/v1/embeddings"):
            reply = ask(odd, "POST", path, REQUEST)
            assert reply.status == 401
            assert reply.headers["WWW-Authenticate"] == "Bearer"
    assert ask(stranger, "GET", "/livez").status == 200
    assert ask(stranger, "GET", "/readyz").status == 200
    assert sidecar.process.stdin is not None
    sidecar.process.stdin.close()
    assert sidecar.exit_code(5) == 0
    assert sidecar.rest()[-1] == {"event": "draining", "v": 1, "in_flight": 0, "reason": "stdin"}
    assert gone(ready["pid"], 1)
    assert ready["token"].encode() not in sidecar.stderr


def test_every_launch_has_its_own_token(start: Start) -> None:
    tokens = {start("--sidecar").until("listening")["token"] for _ in range(2)}
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


def test_a_signal_drains_it(start: Start) -> None:
    sidecar = start("--sidecar")
    os.kill(sidecar.until("ready")["pid"], signal.SIGTERM)
    assert sidecar.exit_code(10) == 0
    assert sidecar.rest()[-1]["reason"] == "signal"


def test_it_answers_while_it_loads(start: Start) -> None:
    sidecar = start("--sidecar", "--load-wait", "20s")
    listening = sidecar.until("listening")
    # No 503 in between: the request waits for the model.
    assert embedded(listening)
    assert sidecar.until("ready")


def test_each_part_has_its_own_flag(start: Start, tmp_path: Path) -> None:
    place, reading, writing = tmp_path / "ready ✓.json", *os.pipe()
    with os.fdopen(reading) as events:
        sidecar = start(
            *("--port", "0", "--ready-file", str(place), "--ready-fd", str(writing)),
            *("--token-env", "MY_TOKEN", "--parent-pid", str(os.getpid())),
            more={"MY_TOKEN": "chosen-by-the-host"},
            pass_fds=[writing],
        )
        os.close(writing)
        told = [checked(events.readline()) for _ in range(3)]
        ready = told[-1]
        assert ready["event"] == "ready"
        assert ready["token"] == "chosen-by-the-host"
        assert checked(place.read_text(encoding="utf-8")) == ready
        assert stat.S_IMODE(place.stat().st_mode) == 0o600
        assert embedded(ready)
        os.kill(ready["pid"], signal.SIGTERM)
        assert sidecar.exit_code(10) == 0
        assert checked(events.readline())["event"] == "draining"
        assert events.readline() == ""
    assert not place.exists()
    assert sidecar.rest() == []  # stdout is for a sidecar's events only
    assert b"chosen-by-the-host" not in sidecar.stderr


def test_a_unix_socket(start: Start, tmp_path: Path) -> None:
    place = tmp_path / "s"
    sidecar = start("--sidecar", "--uds", str(place))
    ready = sidecar.until("ready")
    assert ready["uds"] == str(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600
    assert embedded(ready)
    second = start("--sidecar", "--uds", str(place))
    error = second.until("error")
    assert (error["code"], error["exit_code"]) == ("bind", 4)
    assert second.exit_code() == 4
    assert embedded(ready)
    os.kill(ready["pid"], signal.SIGKILL)
    assert sidecar.exit_code() != 0
    assert place.exists()
    third = start("--sidecar", "--uds", str(place))  # what the dead one left is replaced
    ready = third.until("ready")
    assert embedded(ready)
    os.kill(ready["pid"], signal.SIGTERM)
    assert third.exit_code() == 0
    assert not place.exists()


def test_it_ends_when_unused(start: Start) -> None:
    sidecar = start("--sidecar", "--idle-exit", "300ms")
    assert embedded(sidecar.until("ready"))
    assert sidecar.exit_code(10) == 0
    assert sidecar.rest()[-1]["reason"] == "idle"


def test_a_model_that_is_not_there(start: Start, tmp_path: Path) -> None:
    sidecar = start("--sidecar", model=tmp_path / "none")
    assert sidecar.exit_code() == 3
    (error,) = sidecar.rest()
    assert (error["event"], error["code"], error["exit_code"]) == ("error", "model_file", 3)
    assert str(tmp_path / "none") in error["message"]


def test_a_model_that_is_damaged(start: Start, tiny_mean: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_mean.directory, copy)
    weights = copy / "model.onnx.data"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    sidecar = start("--sidecar", model=copy)
    assert sidecar.exit_code() == 3
    assert [event["event"] for event in sidecar.rest()] == ["listening", "progress", "error"]
    assert str(weights) in sidecar.events[-1]["message"]


def test_a_port_in_use(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        sidecar = start("--sidecar", "--port", str(taken.getsockname()[1]))
        assert sidecar.exit_code() == 4
    (error,) = sidecar.rest()
    assert (error["code"], error["exit_code"]) == ("bind", 4)


def test_a_sidecar_stays_on_this_machine(start: Start) -> None:
    sidecar = start("--sidecar", "--host", "0.0.0.0")  # noqa: S104 - refused
    assert sidecar.exit_code() == 2
    assert sidecar.rest() == []
    assert b"--sidecar" in sidecar.stderr


def test_a_host_that_never_reads_stderr(start: Start) -> None:
    """300 KB of access log into a pipe of 64 KB: requests go on, and so does the end."""
    sidecar = start("--sidecar", "--access-log", read_stderr=False)
    ready = sidecar.until("ready")
    path = "/" + "x" * 3000
    for _ in range(100):
        assert ask(ready, "GET", path).status == 404
    assert embedded(ready)
    assert sidecar.process.stdin is not None
    sidecar.process.stdin.close()
    assert sidecar.exit_code(10) == 0


def test_a_host_that_closes_its_ends(exe: list[str], tiny_mean: Artifact, home: Path) -> None:
    command = [*exe, "serve", "--sidecar", "--access-log", "--model", str(tiny_mean.directory)]
    with subprocess.Popen(
        command,
        env=environment(home),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        ready = checked(process.stdout.readline().decode())
        while ready["event"] != "ready":
            ready = checked(process.stdout.readline().decode())
        process.stdout.close()
        process.stderr.close()
        for _ in range(3):
            assert embedded(ready)
        process.terminate()
        assert process.wait(10) == 0


def test_without_stdout_from_the_start(exe: list[str], tiny_mean: Artifact, home: Path) -> None:
    """`>&-`: nothing is open as descriptor 1. What it says goes to the ready file."""
    place = home / "ready.json"
    command = [*exe, "serve", "--sidecar", "--model", str(tiny_mean.directory)]
    words = " ".join(f"'{word}'" for word in [*command, "--ready-file", str(place)])
    with subprocess.Popen(
        ["/bin/sh", "-c", f"exec {words} >&-"],
        env=environment(home),
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        deadline = time.monotonic() + 30
        while not place.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert embedded(checked(place.read_text()))
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(10) == 0
    assert not place.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["listening", "ready"])
def test_a_host_that_dies_leaves_nothing(
    exe: list[str], home: Path, tiny_mean: Artifact, number: signal.Signals, moment: str
) -> None:
    """The host keeps stdin open in a second process, so that only its own end can tell."""
    host = (
        "import os, subprocess, sys\n"
        "keep, give = os.pipe()\n"
        "holder = subprocess.Popen(['sleep', '8'], pass_fds=[give])\n"
        "child = subprocess.Popen(sys.argv[1:], stdin=keep)\n"
        "child.wait()\n"
    )
    command = [*exe, "serve", "--sidecar", "--model", str(tiny_mean.directory)]
    with subprocess.Popen(
        [sys.executable, "-c", host, *command],
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        event = checked(process.stdout.readline())
        while event["event"] != moment:
            event = checked(process.stdout.readline())
        process.send_signal(number)
        process.wait(10)
        assert gone(event["pid"], 2.5)


def snippet(language: str) -> str:
    """The first host of the README's section about sidecars, in `language`."""
    section = README.read_text(encoding="utf-8").partition("## As a sidecar")[2].partition("\n## ")
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", section[0], flags=re.DOTALL)
    return found[0]


@pytest.mark.parametrize("language", ["python", "js"])
def test_the_hosts_of_the_readme(
    exe: list[str], home: Path, tmp_path: Path, tiny_mean: Artifact, language: str
) -> None:
    runner = {"python": sys.executable, "js": shutil.which("node")}[language]
    if runner is None:
        pytest.skip("node is not installed")
    script = tmp_path / f"host.{'mjs' if language == 'js' else 'py'}"
    # The host shows its server's number, so that the test can see it go.
    shown = {"python": "print(ready['pid'])", "js": "console.log(ready.pid);"}[language]
    script.write_text(snippet(language) + f"\n{shown}\n", encoding="utf-8")
    done = subprocess.run(
        [runner, str(script), str(program(exe, tmp_path))],
        env=environment(home) | {"CORTEX_EMBED_MODEL": str(tiny_mean.directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    dimensions, refused, pid = done.stdout.split()
    assert int(dimensions) == tiny_mean.spec.dimensions
    assert refused == "401"
    assert gone(int(pid), 2.5)
    assert litter(home) == []


def test_the_schema_is_printed(exe: list[str], home: Path) -> None:
    done = subprocess.run(
        [*exe, "sidecar-schema"], env=environment(home), capture_output=True, timeout=30, check=True
    )
    assert json.loads(done.stdout)["title"] == "cortex-embed sidecar events"
