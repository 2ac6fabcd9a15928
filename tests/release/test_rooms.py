"""What rooms are made of, and what is asked of a program in one. `nox -s rooms` makes them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import smoke
import targets
from release import chroot, room_checks, rooms
from release.chroot import Room
from release.room_checks import RoomSmoke

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="rooms are Linux's")


def test_what_is_missing_is_said_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rooms, "missing", lambda arch: ["Install first: x", f"{arch} needs y"])
    work = tmp_path / "work"
    assert rooms.main(["--work", str(work)]) == 2
    assert capsys.readouterr().err == "Install first: x\nx64 needs y\narm64 needs y\n"
    assert not work.exists()


def test_rooms_are_the_tables_linux_targets(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        rooms.main(["--target", "macos-x64"])
    err = capsys.readouterr().err
    for target in targets.load().targets:
        if target.os == "linux":
            assert target.name in err
            assert target.arch in chroot.DEBIAN


@pytest.mark.parametrize("verdicts", [(True, True), (True, False), (False, True)])
def test_one_room_that_fails_fails_the_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, verdicts: tuple[bool, bool]
) -> None:
    left = list(verdicts)
    monkeypatch.setattr(rooms, "missing", lambda _: [])
    monkeypatch.setattr(rooms, "exit_on_sigterm", lambda: None)
    monkeypatch.setattr(rooms, "release_room", lambda *_: left.pop(0))
    assert rooms.main(["--work", str(tmp_path)]) == (0 if all(verdicts) else 1)
    assert left == []


def debian(root: Path) -> Room:
    """The few files of a minimal Debian that a bare room is copied from."""
    (root / "usr/lib/gnu").mkdir(parents=True)
    (root / "usr/bin").mkdir()
    for name in ("lib", "bin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "usr/lib/gnu/libc-2.31.so").write_text("libc", encoding="utf-8")
    (root / "usr/lib/gnu/libc.so.6").symlink_to("libc-2.31.so")
    (root / "usr/lib/gnu/libz.so.1").write_text("libz", encoding="utf-8")
    (root / "usr/bin/dash").write_text("sh", encoding="utf-8")
    (root / "dev").mkdir()
    for name in ("null", "urandom"):
        (root / "dev" / name).touch()
    info = root / "var/lib/dpkg/info"
    info.mkdir(parents=True)
    libc = "/.\n/lib\n/lib/gnu\n/lib/gnu/libc-2.31.so\n/lib/gnu/libc.so.6\n/usr/share/doc/gone\n"
    (info / "libc6:amd64.list").write_text(libc, encoding="utf-8")
    (info / "zlib1g:amd64.list").write_text("/lib/gnu/libz.so.1\n", encoding="utf-8")
    (info / "dash.list").write_text("/bin/dash\n", encoding="utf-8")
    return Room(root, "x64")


def test_a_bare_room_has_three_packages_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Device files are root's to make.
    monkeypatch.setattr(os, "mknod", lambda path, *_: Path(path).touch())
    clean = debian(tmp_path / "clean")
    rooms.bare_room(clean, tmp_path / "bare")
    bare = rooms.bare_room(clean, tmp_path / "bare")  # made anew
    files = {str(p.relative_to(bare.root)) for p in bare.root.rglob("*") if p.is_file()}
    assert files == {
        "usr/lib/gnu/libc-2.31.so", "usr/lib/gnu/libc.so.6", "usr/lib/gnu/libz.so.1",
        "usr/bin/dash", "dev/null", "dev/urandom",
    }  # fmt: skip
    assert (bare.root / "lib").is_symlink()
    assert (bare.root / "lib/gnu/libc.so.6").read_text(encoding="utf-8") == "libc"


@pytest.fixture
def tried(tmp_path: Path) -> RoomSmoke:
    exe = tmp_path / "cortex-embed"
    exe.write_text("program", encoding="utf-8")
    room = Room(tmp_path / "room", "x64")
    return RoomSmoke(exe, room, os.getuid(), [[0.5, 0.25]])


def test_a_program_is_run_by_its_user_in_its_room(tried: RoomSmoke) -> None:
    tried.user = 1000
    command = tried.command("serve", "--sidecar")
    assert Path(command[0]).is_absolute()
    assert command[command.index("--setuid") + 1] == "1000"
    installed, *arguments = command[-3:]
    assert arguments == ["serve", "--sidecar"]
    assert (tried.room.root / installed.lstrip("/")).read_text(encoding="utf-8") == "program"
    assert tried.home.is_dir()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ('{"embedding": [0.5, 0.2500004]}', None),
        ('{"embedding": [0.5, 0.26]}', "from the source's"),
        ('{"embedding": [0.5]}', "of the same dimensions"),
        ("", "0 vectors, not 1"),
    ],
)
def test_vectors_are_the_sources(
    tried: RoomSmoke, monkeypatch: pytest.MonkeyPatch, answer: str, says: str | None
) -> None:
    monkeypatch.setattr(tried, "output", lambda *_: answer)
    if says is None:
        assert "4.0e-07 at most" in room_checks.vectors(tried)
    else:
        with pytest.raises(smoke.SmokeError, match=says):
            room_checks.vectors(tried)


def test_a_room_with_a_python_is_not_bare(tried: RoomSmoke) -> None:
    assert room_checks.no_python(tried) == "none in the room"
    (tried.room.root / "usr" / "bin").mkdir(parents=True)
    (tried.room.root / "usr" / "bin" / "python3").touch()
    with pytest.raises(smoke.SmokeError, match="usr/bin/python3"):
        room_checks.no_python(tried)


@pytest.mark.parametrize(("interfaces", "fails"), [(("lo",), False), (("lo", "eth0"), True)])
def test_a_network_is_noticed(
    tried: RoomSmoke, monkeypatch: pytest.MonkeyPatch, interfaces: Sequence[str], fails: bool
) -> None:
    table = "head\nhead\n" + "".join(f"  {name}: 0 0 0\n" for name in interfaces)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: table)
    if fails:
        with pytest.raises(smoke.SmokeError, match="lo, eth0"):
            room_checks.no_network(tried)
    else:
        assert room_checks.no_network(tried) == "loopback alone"


def test_the_directory_form_is_tried_whole(tmp_path: Path) -> None:
    exe = tmp_path / "onedir" / "cortex-embed-onedir"
    (exe.parent / "_internal").mkdir(parents=True)
    exe.touch()
    one = RoomSmoke(exe, Room(tmp_path / "room", "x64"), os.getuid(), [])
    assert (one.exe.parent / "_internal").is_dir()
    assert one.command("x")[-2] == f"/srv/smoke/a plače/{exe.name}"


@pytest.mark.parametrize("code", [0, 1])
def test_checks_are_made_without_a_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: int
) -> None:
    def run(command: list[str], **_: object) -> object:
        assert {"--net", "release.room_checks", "--user"} <= set(command)
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", run)
    held = rooms.tried(Room(tmp_path, "x64"), tmp_path / "exe", tmp_path / "vectors", 0)
    assert held is (code == 0)


def test_checks_that_hang_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(command: list[str], *, timeout: float, **_: object) -> object:
        raise subprocess.TimeoutExpired(command, timeout)

    monkeypatch.setattr(subprocess, "run", run)
    assert not rooms.tried(Room(tmp_path, "x64"), tmp_path / "exe", tmp_path / "vectors", 0)
    assert "FAIL  not done after 1800 s" in capsys.readouterr().out
