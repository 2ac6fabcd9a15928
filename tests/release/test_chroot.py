"""Rooms, as far as they can be tried without being root: commands, refusals, clean-up."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from release import chroot
from release.chroot import Room, RoomError

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="rooms are Linux's")

MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/root rw
31 22 0:5 / /work/room/proc rw - proc proc rw
32 22 0:6 / /work/room\\040two/dev rw - devtmpfs devtmpfs rw
33 22 0:7 / /work/rooms rw - tmpfs tmpfs rw
"""


def test_mounts_in_a_room_are_found() -> None:
    assert chroot.mounts(Path("/work/room"), MOUNTINFO) == ["/work/room/proc"]
    assert chroot.mounts(Path("/work/room two"), MOUNTINFO) == ["/work/room two/dev"]
    assert chroot.mounts(Path("/work/other"), MOUNTINFO) == []


def test_a_room_that_holds_a_mount_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "room").mkdir()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: MOUNTINFO)
    monkeypatch.setattr(chroot, "mounts", lambda *_: ["/somewhere/proc"])
    with pytest.raises(RoomError, match="mounted in it are /somewhere/proc"):
        chroot.remove(tmp_path / "room")
    assert (tmp_path / "room").is_dir()


def test_a_command_in_a_room(tmp_path: Path) -> None:
    room = Room(tmp_path, "x64")
    command = room.command("prog", "--flag", user=1000, cwd="/srv")
    assert command[0] == "unshare"
    assert "--mount-proc" in command
    assert command[command.index("--setuid") + 1] == "1000"
    assert command[command.index("--root") + 1] == str(tmp_path)
    assert command[-4:] == ["--wd", "/srv", "prog", "--flag"]
    assert "--setuid" not in room.command("prog")


def test_what_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(RoomError, match=r"exited with 3:\nout\nerr"):
        chroot.said(["sh", "-c", "echo out; echo err >&2; exit 3"])
    log = chroot.fresh(tmp_path / "some" / "log")
    with pytest.raises(RoomError, match=r"exited with 4 \(all of it: .*log\):\nfirst\nsecond"):
        chroot.said(["sh", "-c", "echo first; echo second >&2; exit 4"], log=log)
    with pytest.raises(RoomError, match="took longer than 0 s"):
        chroot.said(["sleep", "20"], timeout=0.1)


def bootstrap(
    made: list[list[str]], *, fails: bool = False, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand in for debootstrap: it makes a directory, and may then fail."""

    def said(command: Sequence[str], *, log: Path) -> str:
        made.append(list(command))
        Path(command[-2]).mkdir()
        if fails:
            raise RoomError("the mirror went away")
        return ""

    monkeypatch.setattr(chroot, "said", said)
    monkeypatch.setattr(chroot, "mounts", lambda *_: [])
    monkeypatch.setattr(chroot, "remove", lambda root: shutil.rmtree(root, ignore_errors=True))


def test_a_room_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[list[str]] = []
    bootstrap(made, fails=True, monkeypatch=monkeypatch)
    with pytest.raises(RoomError, match="went away"):
        chroot.make(tmp_path / "room", "arm64", "bullseye")
    assert not (tmp_path / "room").exists()
    bootstrap(made, monkeypatch=monkeypatch)
    for _ in range(2):
        assert chroot.make(tmp_path / "room", "arm64", "bullseye", ["gcc", "make"]).arch == "arm64"
    assert len(made) == 2
    assert {"debootstrap", "--arch=arm64", "--variant=minbase", "--include=gcc,make"} <= set(
        made[1]
    )
    assert f"--keyring={chroot.KEYRING}" in made[1]
    assert made[1][-3:] == ["bullseye", str(tmp_path / "room.part"), chroot.MIRROR]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only that is said")
def test_what_a_machine_lacks_comes_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool == "debootstrap" else tool)
    monkeypatch.setattr(chroot, "KEYRING", tmp_path / "none")
    monkeypatch.setattr(chroot, "BINFMT", tmp_path)
    monkeypatch.setattr(chroot, "foreign", lambda arch: arch == "arm64")
    first, root = chroot.missing("x64")
    assert first == "Install first: apt-get install debootstrap debian-archive-keyring"
    assert "sudo" in root
    install, _, qemu = chroot.missing("arm64")
    assert "qemu-user-static" in install
    assert "update-binfmts --enable qemu-aarch64" in qemu


@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="only root makes namespaces everywhere"
)
def test_nothing_of_a_room_outlives_its_command(tmp_path: Path) -> None:
    """Neither a process that it left behind, nor its /proc: also after a timeout."""
    room = Room(Path("/"), "x64")
    mark = tmp_path / "alive"
    script = f"(while :; do date > {mark}; sleep 0.05; done) & sleep 30"
    before = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    with pytest.raises(RoomError, match="took longer"):
        room.run("sh", "-c", script, timeout=0.5)
    assert mark.is_file()
    time.sleep(0.2)
    mark.unlink()
    time.sleep(0.3)
    assert not mark.exists()
    assert Path("/proc/self/mountinfo").read_text(encoding="utf-8") == before
