"""Install, print, remove: against a manager that only remembers."""

from __future__ import annotations

import plistlib
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cortex_embed import cli
from cortex_embed.commands import service
from cortex_embed.errors import InstanceError, UsageError
from cortex_embed.managers.job import Job
from cortex_embed.managers.manager import MARK
from cortex_embed.models.artifact import Artifact

Run = Callable[..., int]


@dataclass
class Remembering:
    """A manager in memory. `broken`: what it cannot start contains this."""

    name: str = "memory"
    place: str = "the place"
    there: bytes | None = None
    running: bool = False
    broken: bytes | None = None
    reachable: bool = True
    done: list[str] = field(default_factory=list)

    def definition(self, job: Job) -> bytes:
        return f"{MARK}: {' '.join(job.words)}".encode()

    def check(self) -> None:
        if not self.reachable:
            raise InstanceError("not reachable")

    def installed(self) -> bytes | None:
        return self.there

    def install(self, definition: bytes) -> None:
        self.there = definition
        self.done.append("install")
        if self.broken is not None and self.broken in definition:
            raise InstanceError("its last words", exit_code=3)
        self.running = True

    def remove(self) -> None:
        self.there = None
        self.running = False
        self.done.append("remove")

    def state(self) -> tuple[bool, str]:
        return self.running, "up" if self.running else "down"

    def hints(self) -> dict[str, str]:
        return {"logs": "look there"}


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Remembering:
    manager = Remembering()
    monkeypatch.setattr(service, "manager_of", lambda _name, *, system: manager)
    monkeypatch.setattr(service, "_format_here", lambda: "systemd")
    monkeypatch.setattr(service, "passing", lambda _words: "")
    monkeypatch.setattr("cortex_embed.config.set_here", list)
    return manager


@pytest.fixture
def run(tiny_mean: Artifact) -> Run:
    """`run(action, *words)`: the exit code. What defines a service gets the tiny model, port 0."""

    def run(action: str, *words: str) -> int:
        own: tuple[str, ...] = ()
        own += ("--model", str(tiny_mean.directory)) if action in {"install", "print"} else ()
        if action == "install" and "--port" not in words:
            own += ("--port", "0")
        return cli.run(["service", action, *own, *words])

    return run


def test_install_says_what_it_did_and_what_comes_next(
    manager: Remembering, run: Run, tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("install", "--threads", "1") == 0
    said = capsys.readouterr()
    assert said.out.startswith("Installed the place and started it: http://127.0.0.1:PORT\n")
    assert "  logs: look there\n" in said.out
    assert "remove: cortex-embed service uninstall\n" in said.out
    assert said.err == ""
    assert manager.there is not None
    assert manager.there.decode().endswith(
        f" serve --model={tiny_mean.directory} --port=0 --threads=1"
    )
    assert run("status") == 0
    assert run("install") == 0
    assert capsys.readouterr().out.startswith("the place: up\nReplaced the place")


def test_uninstall_is_the_way_back_and_may_be_asked_twice(
    manager: Remembering, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("uninstall") == 0
    assert capsys.readouterr().out == "Nothing to remove: the place is not there.\n"
    assert run("status") == 1
    assert capsys.readouterr().out == "Not installed: the place is not there.\n"
    run("install")
    capsys.readouterr()
    assert run("uninstall") == 0
    assert capsys.readouterr().out == "Stopped it and removed the place.\n"
    assert manager.there is None


@pytest.mark.parametrize("action", ["install", "uninstall"])
def test_what_somebody_else_wrote_stays(
    action: str, manager: Remembering, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    manager.there = b"[Service]\nExecStart=/mine\n"
    assert run(action) == 6
    assert manager.there == b"[Service]\nExecStart=/mine\n"
    assert manager.done == []
    assert "was not written by" in capsys.readouterr().err
    assert run("status") == 1
    assert "(not written by" in capsys.readouterr().out


def test_what_does_not_start_is_taken_back(
    manager: Remembering, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    manager.broken = b"--threads=7"
    assert run("install", "--threads", "7") == 3
    assert manager.there is None
    assert "its last words\nNothing was left behind." in capsys.readouterr().err
    run("install", "--threads", "2")
    before = manager.there
    assert run("install", "--threads", "7") == 3
    assert manager.there == before
    assert manager.running
    assert "The service of before is back." in capsys.readouterr().err


def test_what_can_neither_be_started_nor_taken_back_says_both(
    manager: Remembering, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    run("install")
    manager.broken = b"serve"
    assert run("install", "--threads", "7") == 3
    said = capsys.readouterr().err
    assert "its last words\nAnd it could not be taken back: its last words" in said


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        (["--port", "x"], (2, "--port: 'x' must be a whole number")),
        (["--model", "no-such-model"], (2, "no-such-model")),
        (["--api-key-file", "/none/keys"], (2, "cannot read /none/keys")),
        (["--host", "192.0.2.1"], (4, "192.0.2.1 is not an address of this machine")),
    ],
)
def test_what_would_not_serve_is_refused_before_anything_is_written(
    words: list[str],
    refused: tuple[int, str],
    manager: Remembering,
    run: Run,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, message = refused
    assert run("install", *words) == code
    assert message in capsys.readouterr().err
    assert manager.done == []


def test_a_port_that_another_program_has(
    manager: Remembering, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        assert run("install", "--port", str(other.getsockname()[1])) == 4
    assert "is in use" in capsys.readouterr().err
    assert manager.done == []


def test_a_manager_that_is_not_there(
    manager: Remembering, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    manager.reachable = False
    assert run("install") == 1
    assert "not reachable" in capsys.readouterr().err
    assert manager.done == []


def test_a_program_in_a_temporary_directory_is_refused(
    manager: Remembering, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "passing", lambda _words: "it will go")
    assert run("install") == 2
    assert manager.done == []


def test_what_a_service_does_not_see_is_said(
    manager: Remembering,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cortex_embed.config.set_here", lambda: ["CORTEX_EMBED_PORT"])
    assert run("install") == 0
    assert "CORTEX_EMBED_PORT: set in this shell, and NOT seen" in capsys.readouterr().err
    assert manager.running


def test_an_open_server_is_warned_of(
    manager: Remembering, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("install", "--host", "0.0.0.0") == 0  # noqa: S104 - for a moment, to be warned
    assert "note: ANYONE who can reach" in capsys.readouterr().err
    assert manager.running


def test_a_missing_model_is_downloaded_before_the_service_is_there(
    manager: Remembering, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fetched: list[tuple[str, ...]] = []
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_, **__: str(tmp_path))
    monkeypatch.setattr(
        "cortex_embed.commands.download.all_here",
        lambda settings, _report: fetched.append(settings.model),
    )
    assert cli.run(["service", "install", "--port", "0", "--model", "bge-m3"]) == 0
    assert fetched == [("bge-m3",)]
    assert run("uninstall") == 0
    assert manager.done == ["install", "remove"]


@pytest.mark.parametrize("form", ["systemd", "launchd", "windows"])
def test_print_gives_the_definition_and_nothing_else(
    form: str, run: Run, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run("print", "--format", form, "--port", "9000") == 0
    out = capfdbinary.readouterr().out
    if form == "systemd":
        assert out.startswith(b"# Written by")
        assert out.count(b"[Service]") == 1
    elif form == "launchd":
        assert "--port=9000" in plistlib.loads(out)["ProgramArguments"]
    else:
        assert out.decode("utf-16").startswith("<?xml")


def test_a_manager_is_chosen_by_name_and_system_is_systemds() -> None:
    for name in ("systemd", "launchd", "windows"):
        assert service.manager_of(name).place
    assert service.manager_of("systemd", system=True).place.startswith("/etc/systemd/system/")
    with pytest.raises(UsageError, match="--system: only with systemd"):
        service.manager_of("launchd", system=True)


def test_a_system_without_a_known_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_PLATFORM", "freebsd14")
    with pytest.raises(UsageError, match="no service manager of freebsd14 is known here"):
        service._format_here()
    monkeypatch.setattr(service, "_PLATFORM", sys.platform)
    assert service._format_here() in {"systemd", "launchd", "windows"}
