"""The calls of systemctl, against a stand-in; tests/rehearsal has a real systemd."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cortex_embed.errors import InstanceError
from cortex_embed.managers import systemd
from cortex_embed.managers.systemd import UNIT, Systemd
from tests.managers.conftest import Tool, make_job

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")

SHOWN = "*show*) printf 'InvocationID=abc\\nExecMainStatus=4\\nActiveState=failed\\n';;"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Systemd:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Systemd()


def test_install_writes_reloads_enables_and_restarts(manager: Systemd, tool: Tool) -> None:
    tool.answer("systemctl")
    definition = manager.definition(make_job())
    manager.check()
    manager.install(definition)
    assert manager.installed() == definition
    assert tool.calls == [
        "systemctl --user show-environment",
        "systemctl --user daemon-reload",
        f"systemctl --user enable --quiet {UNIT}",
        f"systemctl --user restart {UNIT}",
    ]
    assert manager.place.endswith(f"config/systemd/user/{UNIT}")


def test_remove_stops_disables_and_forgets(manager: Systemd, tool: Tool) -> None:
    tool.answer("systemctl")
    manager.install(b"x")
    before = len(tool.calls)
    manager.remove()
    assert manager.installed() is None
    assert tool.calls[before:] == [
        f"systemctl --user disable --now --quiet {UNIT}",
        "systemctl --user daemon-reload",
        f"systemctl --user reset-failed {UNIT}",
    ]


def test_a_service_that_does_not_start_gives_its_last_words_and_code(
    manager: Systemd, tool: Tool
) -> None:
    tool.answer("systemctl", SHOWN, "*restart*) echo 'Job failed. See journalctl' >&2; exit 1;;")
    tool.answer("journalctl", "*) echo 'port 1 is in use';;")
    with pytest.raises(InstanceError, match="port 1 is in use") as caught:
        manager.install(b"x")
    assert caught.value.exit_code == 4
    (call,) = (call for call in tool.calls if call.startswith("journalctl"))
    assert "_SYSTEMD_INVOCATION_ID=abc + USER_INVOCATION_ID=abc" in call


def test_without_a_journal_systemctl_has_the_last_word(manager: Systemd, tool: Tool) -> None:
    # 217: systemd could not even make the user.
    shown = SHOWN.replace("=4", "=217")
    tool.answer("systemctl", shown, "*restart*) echo 'Job failed'; exit 1;;")
    tool.answer("journalctl", "*) exit 1;;")
    with pytest.raises(InstanceError, match="Job failed") as caught:
        manager.install(b"x")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(("booted", "way"), [(True, "enable-linger USER"), (False, "container")])
def test_no_manager_to_reach(
    booted: bool, way: str, manager: Systemd, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool.answer("systemctl", "*) echo 'Failed to connect to bus' >&2; exit 1;;")
    monkeypatch.setattr(systemd, "_RUNS", Path("/" if booted else "/none"))
    with pytest.raises(InstanceError, match="Failed to connect to bus") as caught:
        manager.check()
    assert way in caught.value.message


def test_no_systemctl_at_all(
    manager: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InstanceError, match="systemctl cannot be run"):
        manager.check()


def test_the_systems_own_needs_root(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(InstanceError, match="--system needs root"):
        Systemd(system=True).check()
    assert tool.calls == []
    monkeypatch.setattr("os.geteuid", lambda: 0)
    tool.answer("systemctl")
    Systemd(system=True).check()
    assert tool.calls == ["systemctl show-environment"]


@pytest.mark.parametrize(
    ("state", "runs", "words"),
    [
        ("active\\nSubState=running\\nStatusText=Serving x", True, "active (running): Serving x"),
        ("inactive\\nSubState=dead\\nStatusText=", False, "inactive (dead)"),
    ],
)
def test_state(state: str, runs: bool, words: str, manager: Systemd, tool: Tool) -> None:
    tool.answer("systemctl", f"*show*) printf 'ActiveState={state}\\n';;")
    assert manager.state() == (runs, words)


def test_who_does_not_linger_is_told_how_to(
    manager: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "_LINGER", tmp_path)
    assert "loginctl enable-linger" in manager.hints().values()
    (tmp_path / systemd._user()).touch()
    assert "loginctl enable-linger" not in manager.hints().values()
    assert manager.hints()["logs"] == "journalctl --user -u cortex-embed"
    assert Systemd(system=True).hints()["logs"] == "journalctl -u cortex-embed"
