"""The plist by Apple's own format (plistlib), and the calls of launchctl against a stand-in."""

from __future__ import annotations

import plistlib
import sys
from pathlib import Path

import pytest

from cortex_embed.errors import InstanceError
from cortex_embed.managers import launchd
from cortex_embed.managers.launchd import LABEL, Launchd
from cortex_embed.managers.manager import is_ours
from tests.managers.conftest import Tool, make_job

GONE = "*print*gui/501/*) exit 113;;"


def test_the_plist_reads_back(tmp_path: Path) -> None:
    odd = "/Volumes/ä & <b> \"c\" 'd'/keys"
    job = make_job("--grace-period", "10s", "--api-key-file", odd, program=("/opt/a & b/x",))
    definition = Launchd(tmp_path).definition(job)
    assert is_ours(definition)
    keys = plistlib.loads(definition)
    assert keys["Label"] == LABEL
    assert keys["ProgramArguments"] == [
        *("/opt/a & b/x", "serve", "--grace-period=10s", f"--api-key-file={odd}")
    ]
    assert keys["RunAtLoad"] is True
    assert keys["KeepAlive"] == {"SuccessfulExit": False}
    assert keys["ExitTimeOut"] == 25
    assert keys["StandardErrorPath"] == f"{tmp_path}/Library/Logs/cortex-embed/cortex-embed.log"
    # Every key is one of launchd.plist(5): it ignores what it does not know.
    assert set(keys) <= {
        *("Label", "ProgramArguments", "RunAtLoad", "KeepAlive", "ThrottleInterval"),
        *("ExitTimeOut", "ProcessType", "StandardOutPath", "StandardErrorPath", "Umask"),
    }


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Launchd:
    if sys.platform == "win32":
        pytest.skip("launchd is macOS's; the stand-in a shell script")
    monkeypatch.setattr("os.getuid", lambda: 501)
    monkeypatch.setattr(launchd, "_TICK", 0.01)
    return Launchd(tmp_path / "home")


def test_install_unloads_the_old_one_and_loads_the_new(agent: Launchd, tool: Tool) -> None:
    tool.answer("launchctl", GONE)
    agent.check()
    agent.install(b"x")
    assert agent.installed() == b"x"
    assert tool.calls == [
        "launchctl print gui/501",
        f"launchctl bootout gui/501/{LABEL}",
        f"launchctl print gui/501/{LABEL}",
        f"launchctl enable gui/501/{LABEL}",
        f"launchctl bootstrap gui/501 {agent.place}",
    ]
    assert (Path(agent.place).parent.parent / "Logs" / "cortex-embed").is_dir()
    agent.remove()
    assert agent.installed() is None


def test_an_old_one_that_stays_is_waited_for(
    agent: Launchd, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.answer("launchctl")  # print goes on finding it
    monkeypatch.setattr(launchd, "_PATIENCE", 0.2)
    with pytest.raises(InstanceError, match="has not ended"):
        agent.install(b"x")
    assert not any("bootstrap" in call for call in tool.calls)


def test_what_launchd_refuses_is_said(agent: Launchd, tool: Tool) -> None:
    tool.answer("launchctl", GONE, "bootstrap*) echo 'Input/output error'; exit 5;;")
    with pytest.raises(InstanceError, match=r"code 5\): Input/output error"):
        agent.install(b"x")


def test_no_session_at_the_screen(agent: Launchd, tool: Tool) -> None:
    tool.answer("launchctl", "*) echo 'Domain does not support specified action'; exit 125;;")
    with pytest.raises(InstanceError, match="no login session at the screen for user 501"):
        agent.check()


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        ("*) printf 'gui/501/x = {\\n\\tstate = running\\n}\\n';;", (True, "running")),
        ("*) printf '\\tstate = not running\\n';;", (False, "not running")),
        ("*) exit 113;;", (False, "not loaded")),
    ],
)
def test_state(answer: str, state: tuple[bool, str], agent: Launchd, tool: Tool) -> None:
    tool.answer("launchctl", answer)
    assert agent.state() == state
