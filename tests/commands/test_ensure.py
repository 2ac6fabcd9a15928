"""One server for all who ask. The server is a stub that keeps the contract of `serve`."""

from __future__ import annotations

import json
import os
import signal
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cortex_embed.commands import ensure
from cortex_embed.config import Settings
from cortex_embed.errors import UsageError
from cortex_embed.models.artifact import Artifact
from cortex_embed.processes import alive
from cortex_embed.waiting import settle
from tests.commands.shared import STUB, Shared, finish

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stub ends by SIGTERM")


@pytest.fixture
def shared(tmp_path: Path, tiny_mean: Artifact) -> Iterator[Shared]:
    world = Shared(tmp_path / "run", tiny_mean.directory)
    yield world
    code, _, err = world.run("stop", "--all")
    assert code == 0, err
    assert world.names(".json") == world.names(".ready") == []


def test_the_first_starts_it_and_the_second_finds_it(shared: Shared) -> None:
    first = shared.ensure()
    assert alive(first["pid"])
    assert (first["event"], first["v"]) == ("ready", 1)
    assert shared.ensure() == first
    assert len(shared.starts) == 1


def test_ten_at_once_get_one_server(shared: Shared) -> None:
    asking = [shared.begin("ensure", STUB_DELAY="0.3") for _ in range(10)]
    answers = [finish(process) for process in asking]
    assert {code for code, _, _ in answers} == {0}
    assert len({out for _, out, _ in answers}) == 1
    assert len(shared.starts) == 1


def test_how_it_is_started(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORTEX_EMBED_PORT", "8121")
    event = shared.ensure("--threads", "1", "--access-log")
    (started,) = shared.starts
    words = started.split()
    assert words[0] == "serve"
    assert {"--threads=1", "--access-log=true", "--port=0", "--idle-exit=15m"} <= set(words)
    assert f"--model={shared.model}" in words
    assert "--token-env=CORTEX_EMBED_TOKEN" in words
    assert event["token"] not in started
    assert len(event["token"]) >= 32
    assert os.getsid(event["pid"]) == event["pid"] != os.getsid(0)
    environment = Path(f"/proc/{event['pid']}/environ")
    if environment.exists():
        assert b"CORTEX_EMBED_PORT" not in environment.read_bytes()


def test_idle_exit_can_be_chosen(shared: Shared) -> None:
    shared.ensure("--idle-exit", "2h")
    assert "--idle-exit=2h" in shared.starts[0].split()


def test_another_model_or_policy_is_another_server(shared: Shared, tiny_cls: Artifact) -> None:
    pids = {
        shared.ensure()["pid"],
        shared.ensure("--model", str(tiny_cls.directory))["pid"],
        shared.ensure("--on-overlong", "error")["pid"],
    }
    assert len(pids) == 3
    assert shared.ensure("--threads", "2")["pid"] in pids  # vectors do not depend on it


def test_files_are_the_users_own(shared: Shared) -> None:
    old = os.umask(0)
    try:
        shared.ensure()
    finally:
        os.umask(old)
    assert stat.S_IMODE(shared.runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE((shared.runtime / shared.names(".log")[0]).stat().st_mode) == 0o600


def test_a_killed_server_is_replaced(shared: Shared) -> None:
    first = shared.ensure()
    os.kill(first["pid"], signal.SIGKILL)
    assert settle(first["pid"], 5)
    second = shared.ensure()
    assert second["pid"] != first["pid"]
    assert second["token"] != first["token"]
    assert len(shared.names(".ready")) == 1  # the stale one is gone


def test_a_port_that_was_given_to_a_stranger_is_not_ours(shared: Shared) -> None:
    """The process lives, something answers 200 to everything, but not our token."""
    first = shared.ensure()
    ready = shared.runtime / shared.names(".ready")[0]
    ready.write_text(json.dumps(first | {"token": "stale"}))
    second = shared.ensure()
    assert second["pid"] != first["pid"]
    os.kill(first["pid"], signal.SIGKILL)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"pid": 1}', '{"ready": "../../x"}'])
def test_a_damaged_record_is_replaced(shared: Shared, content: str) -> None:
    first = shared.ensure()
    (shared.runtime / shared.names(".json")[0]).write_text(content)
    second = shared.ensure()
    assert second["pid"] != first["pid"]
    os.kill(first["pid"], signal.SIGKILL)


def test_the_servers_own_failure_comes_through(shared: Shared) -> None:
    code, out, err = shared.run("ensure", STUB_EXIT="3")
    assert (code, out) == (3, "")
    assert "ended before it was ready (exit code 3)" in err
    assert "the model is damaged" in err
    assert shared.names(".json") == []


def test_a_server_that_was_killed_while_loading(shared: Shared) -> None:
    asking = shared.begin("ensure", STUB_DELAY="30")
    deadline = time.monotonic() + 20
    while not shared.names(".json"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    record = json.loads((shared.runtime / shared.names(".json")[0]).read_text())
    os.kill(record["pid"], signal.SIGKILL)
    code, _, err = finish(asking)
    assert code == 128 + signal.SIGKILL
    assert "signal 9" in err


def test_a_load_that_takes_too_long_goes_on_and_is_found(shared: Shared) -> None:
    code, _, err = shared.run("ensure", "--wait", "300ms", STUB_DELAY="2")
    assert code == 1
    assert "not ready after 0.3 s" in err
    assert "--wait" in err
    code, _, err = shared.run("ensure", "--wait", "0")
    assert "is still loading after 0 s" in err
    assert shared.ensure()["event"] == "ready"
    assert len(shared.starts) == 1


def test_who_is_killed_while_starting_leaves_a_server_that_is_found(shared: Shared) -> None:
    asking = shared.begin("ensure", STUB_DELAY="1")
    deadline = time.monotonic() + 20
    while not shared.names(".json"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    asking.kill()
    finish(asking)
    assert shared.ensure()["event"] == "ready"
    assert len(shared.starts) == 1


def test_a_wrong_wait_is_a_usage_error(shared: Shared) -> None:
    for flag in ("--wait", "--idle-exit"):
        code, _, err = shared.run("ensure", flag, "soon")
        assert code == 2
        assert f"{flag}: 'soon' must be a duration" in err


def test_a_directory_that_others_can_read_is_refused(shared: Shared) -> None:
    shared.runtime.mkdir(mode=0o755)
    code, _, err = shared.run("ensure")
    assert code == 6
    assert "mode 0755; chmod 700 closes it" in err
    shared.runtime.chmod(0o700)


def test_an_unknown_model_starts_nothing(shared: Shared) -> None:
    code, _, err = shared.run("ensure", "--model", "no-such-model")
    assert code == 2
    assert "no-such-model" in err
    assert shared.starts == []


def test_it_runs_in_process_too(
    shared: Shared, tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(model=(str(tiny_mean.directory),), runtime_dir=shared.runtime)
    program = [sys.executable, str(STUB)]
    assert ensure.run(settings, ensure.Options(), program) == 0
    assert json.loads(capsys.readouterr().out) == shared.ensure()


def test_a_unix_socket_cannot_be_shared(tiny_mean: Artifact) -> None:
    class WithSocket:
        uds = Path("/x")

    with pytest.raises(UsageError, match="--uds"):
        ensure.run(WithSocket(), ensure.Options())  # type: ignore[arg-type]


def test_several_models_are_one_server_of_their_own(shared: Shared, tiny_cls: Artifact) -> None:
    both = ["--model", str(shared.model), "--model", str(tiny_cls.directory)]
    event = shared.ensure(*both)
    words = shared.starts[0].split()
    assert [word for word in words if word.startswith("--model=")] == [
        f"--model={shared.model}",
        f"--model={tiny_cls.directory}",
    ]
    assert shared.ensure()["pid"] != event["pid"]
    assert shared.ensure(*both)["pid"] == event["pid"]
    code, out, _ = shared.run("stop", *both)
    assert (code, out.startswith("Stopped tiny-mean, tiny-cls (fp32)")) == (0, True)
