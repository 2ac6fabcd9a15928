"""A model that is not on this machine: fetched by real processes from a hub on loopback.

Every process has a home of its own; nothing reaches beyond loopback.
"""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.e2e.machine import GRAPH, REPO, Machine, until
from tests.e2e.process import Served
from tests.events_schema import checked
from tests.hub import REVISION, Hub, catalogue, repository

pytestmark = pytest.mark.e2e

_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


def test_a_pull_and_all_that_follows(machine: Machine) -> None:
    out, err = machine.run("models", "pull", "th")
    assert out == f"tiny-hub is in {machine.final}, verified.\n"
    assert "Licence: mit" in err
    assert machine.files() == []
    machine.hub.close()
    assert machine.run("models", "path", "tiny-hub")[0] == f"{machine.final}\n"
    machine.run("models", "pull", "tiny-hub")
    out, _ = machine.run("embed", "--model", "tiny-hub", "hello", "--offline")
    assert len(json.loads(out)["embedding"]) == 32


def test_embed_fetches_what_it_needs(machine: Machine) -> None:
    out, err = machine.run("embed", "--model", "tiny-hub", "hello")
    assert len(out.splitlines()) == 1
    assert "Fetching tiny-hub" in err


def test_a_server_answers_while_it_downloads(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow")
    served = machine.serve("--ready-file", str(machine.home / "ready.json"))
    try:
        client = served.listening()
        reply = client.get("/readyz")
        assert (reply.status, reply.json) == (503, {"status": "downloading"})
        reply = client.post("/v1/embeddings", {"model": "th", "input": "hello"})
        assert (reply.status, reply.headers["Retry-After"]) == (503, "5")
        assert reply.headers["X-Phase"] == "downloading"
        assert "downloaded" in reply.json["error"]["message"]
        assert client.get("/v1/models").json["data"][0]["id"] == "tiny-hub"
        served.wait_for("Model ready")
        assert len(client.embed(["hello"])[0]) == 32
        assert client.get("/model_info").json["fingerprint"].startswith("cx1:")
        served.signal()
        assert served.exit_code() == 0
    finally:
        served.close()
    assert machine.files() == []


def test_a_server_of_several_models_fetches_what_is_missing(machine: Machine) -> None:
    """Whether it is the default or another; the next start needs no hub."""
    for first, second in (("hash", "tiny-hub"), ("tiny-hub", "hash")):
        command = [*machine.exe, "serve", "--port", "0", "--model", first, "--model", second]
        served = Served([*command, "--load-wait", "20s"], machine.home, machine.more)
        try:
            client = served.ready()
            assert served.stderr.count("Fetching tiny-hub") == (first == "hash")
            told = client.get("/v1/models").json["data"]
            assert [(one["id"], one["loaded"]) for one in told] == [(first, True), (second, False)]
            assert all(one["fingerprint"].startswith("cx1:") for one in told)
            assert len(client.embed(["hello"], model="tiny-hub")[0]) == 32
            assert len(client.embed(["hello"], model="hash")[0]) == 384
        finally:
            served.close()
        machine.hub.close()


def test_a_host_follows_the_download(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow")
    with subprocess.Popen(
        [*machine.exe, "serve", "--sidecar", "--model", "tiny-hub"],
        env=machine.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        events, times = [], []
        for line in process.stdout:
            events.append(checked(line))
            times.append(time.monotonic())
            if events[-1]["event"] == "ready":
                process.stdin.close()
                break
        process.wait(30)
    assert events[0]["event"] == "listening"
    progress = [e for e in events if e["event"] == "progress"]
    assert progress[-1] == {"event": "progress", "v": 1, "phase": "load", "model": "tiny-hub"}
    downloads = [e for e in progress if e["phase"] == "download"]
    assert len(downloads) >= 3
    size = sum(map(len, machine.hub.repositories[REPO].values()))
    assert {e["total"] for e in downloads} == {size}
    assert [e["done"] for e in downloads] == sorted(e["done"] for e in downloads)
    assert "verify" in {e["phase"] for e in progress}
    seconds = times[-1] - times[0]
    assert len(downloads) <= 5 * seconds + 1


@_POSIX
def test_a_stop_while_downloading_loses_nothing(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow", times=1)
    served = machine.serve()
    try:
        served.listening()
        until(lambda: machine.hub.sent[GRAPH] > 500_000)
        served.signal(signal.SIGTERM)
        assert served.exit_code() == 0
    finally:
        served.close()
    machine.run("models", "pull", "tiny-hub")
    # What had arrived at the stop, but for what was on its way.
    size = len(machine.hub.repositories[REPO][GRAPH])
    assert machine.hub.sent[GRAPH] < size + 400_000
    assert machine.files() == []


@pytest.mark.parametrize(
    ("trouble", "code", "words"),
    [
        ({"kind": "status", "status": 404}, "download_not_found", "HTTP 404"),
        ({"kind": "stall"}, "download_stalled", "for 3 s (--stall-timeout)"),
    ],
)
def test_a_server_that_cannot_fetch_says_so_and_ends(
    machine: Machine, trouble: dict[str, object], code: str, words: str
) -> None:
    machine.hub.trouble(GRAPH, **trouble)
    done = machine.start("serve", "--port", "0", "--model", "tiny-hub", "--ready-fd", "1")
    out, err = done.communicate(timeout=30)
    assert done.returncode == 10
    assert words in err
    last = checked(out.splitlines()[-1])
    assert (last["event"], last["code"], last["exit_code"]) == ("error", code, 10)


def test_what_cannot_be_fetched_never_binds(machine: Machine) -> None:
    for flags, code in (
        (["--model", "nonsense"], 2),
        (["--model", "codebert-base"], 10),
        (["--model", "embeddinggemma"], 10),
        (["--model", "tiny-hub", "--precision", "int8"], 2),
    ):
        _, err = machine.run("serve", "--port", "0", *flags, code=code)
        assert "Listening" not in err
    assert machine.hub.requests == []


@_POSIX
@pytest.mark.timeout(300)
def test_killed_at_twenty_moments_the_next_pull_finishes(machine: Machine) -> None:
    """Wherever it is killed, nothing broken is ever in its place, and nothing is left behind."""
    machine.hub.repositories[REPO] = repository(rows=8_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    dice = random.Random(20)  # noqa: S311 - moments, not secrets
    killed = resumed = 0
    for _ in range(20):
        machine.hub.trouble(GRAPH, "slow", times=1)
        process = machine.start("models", "pull", "tiny-hub")
        assert process.stderr is not None
        while "Fetching" not in (line := process.stderr.readline()):
            assert line, "it ended early"
        time.sleep(dice.uniform(0, 0.8))
        process.kill()
        process.communicate(timeout=10)
        killed += process.returncode == -signal.SIGKILL
        if machine.final.exists():  # whole, or not at all
            machine.run("models", "verify", "tiny-hub")
        else:
            _, err = machine.run("models", "path", "tiny-hub", code=3)
            assert "models pull tiny-hub" in err
        machine.hub.troubles.clear()
        machine.hub.requests.clear()
        machine.run("models", "pull", "tiny-hub")
        resumed += any(r.headers.get("Range") for r in machine.hub.requests)
        machine.run("models", "verify", "tiny-hub")
        assert machine.files() == []
        shutil.rmtree(machine.final)
    assert killed >= 10
    assert resumed >= 5


def test_two_processes_fetch_it_once(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)
    catalogue(machine.home / "mine.toml", machine.hub)
    machine.hub.trouble(GRAPH, "slow")
    both = [machine.start("models", "pull", "tiny-hub") for _ in range(2)]
    said = [one.communicate(timeout=60)[1] for one in both]
    assert [one.returncode for one in both] == [0, 0]
    assert machine.hub.count("HEAD", f"resolve/{REVISION}/{GRAPH}") == 1
    assert machine.hub.sent[GRAPH] == len(machine.hub.repositories[REPO][GRAPH])
    pids = {str(one.pid) for one in both}
    # None waits where one was done before the other began; who holds a lock is written just after
    # it is taken, and of the one-file form the outer process is known here.
    waited = re.findall(r"being fetched by (?:process (\d+)|another process): wait", "".join(said))
    assert len(waited) <= 1
    if len(machine.exe) > 1:
        assert set(waited) <= {"", *pids}
    assert machine.files() == []


@_POSIX
def test_the_lock_of_the_dead_holds_nobody(machine: Machine) -> None:
    machine.hub.trouble(GRAPH, "stall", times=1)
    process = machine.start("models", "pull", "tiny-hub")
    # Not the first request: a kill before the storage is asked would leave the stall to the second.
    until(lambda: machine.hub.troubles[GRAPH][0].times == 0)
    process.kill()
    process.communicate(timeout=10)
    assert list((machine.final.parent / ".partial").glob("*.lock"))
    machine.run("models", "pull", "tiny-hub")
    assert machine.files() == []


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("how", ["--offline", "HF_HUB_OFFLINE"])
def test_offline_opens_no_connection(machine: Machine, how: str, tmp_path: Path) -> None:
    flags = ["--offline"] if how == "--offline" else []
    if not flags:
        machine.more["HF_HUB_OFFLINE"] = "1"
    trace = tmp_path / "trace"
    program = ["strace", "-f", "-qq", "-e", "trace=network", "-o", str(trace), *machine.exe]
    offline = Machine(program, machine.hub, tmp_path / "other", machine.more)
    for command, code in (
        (["models", "pull", "tiny-hub"], 10),
        (["embed", "--model", "tiny-hub", "hello"], 10),
    ):
        _, err = offline.run(*command, *flags, code=code)
        assert "Missing: config.json, tokenizer.json, onnx/model.onnx" in err
        calls = trace.read_text()
        assert not re.search(r"sin_addr|sin6_addr", calls), calls
    # The same, of a server: only what it listens on.
    process = offline.start("serve", "--port", "0", "--model", "tiny-hub", *flags)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 10
    reached = [
        line for line in trace.read_text().splitlines() if re.search(r"sin_addr|sin6_addr", line)
    ]
    assert all(re.search(r"\b(bind|getsockname|setsockopt)\(", line) for line in reached), reached
    assert machine.hub.requests == []


def test_the_hub_itself_works(hub: Hub) -> None:
    """So that a test which finds no request does not find none for another reason."""
    url = f"{hub.url}/{REPO}/resolve/{REVISION}/{GRAPH}"
    assert urlopen(url, timeout=10).read() == hub.repositories[REPO][GRAPH]  # noqa: S310
