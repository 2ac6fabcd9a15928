"""Directories of dead bootloaders, and all that looks like them and must stay."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cortex_embed import litter
from cortex_embed.litter import MARKER, hold, remove_tree, sweep

DEAD = 2**31 - 7


def unpack(temp: Path, pid: int = DEAD, suffix: str = "abcdef", *, old: bool = True) -> Path:
    """A directory as the bootloader `pid` leaves it."""
    directory = temp / f"_MEI{pid:08x}{suffix}"
    (directory / "numpy" / "core").mkdir(parents=True)
    for name in (MARKER, "libz.so.1", "numpy/core/multiarray.so"):
        (directory / name).write_bytes(b"x")
    if old:
        age(directory)
    return directory


def age(directory: Path) -> None:
    past = time.time() - 60
    os.utime(directory, (past, past))


def test_the_directory_of_a_dead_bootloader_goes(tmp_path: Path) -> None:
    first, second = unpack(tmp_path), unpack(tmp_path, suffix="ABC123")
    assert sweep(tmp_path) == sorted([second.name, first.name])
    assert list(tmp_path.iterdir()) == []


def test_an_empty_one_goes(tmp_path: Path) -> None:
    empty = tmp_path / f"_MEI{DEAD:08x}abcdef"
    empty.mkdir()
    age(empty)
    assert sweep(tmp_path) == [empty.name]


def test_the_directory_of_a_living_bootloader_stays(tmp_path: Path) -> None:
    alive = unpack(tmp_path, os.getpid())
    assert sweep(tmp_path) == []
    assert (alive / MARKER).exists()


def test_other_programs_directories_stay(tmp_path: Path) -> None:
    other = unpack(tmp_path)
    (other / MARKER).unlink()
    age(other)
    names = ["_MEI", "_MEI1234", "_MEIxyz12345abcdef", "mine", "_MEI0000002A"]
    for name in names:
        (tmp_path / name).mkdir()
    assert sweep(tmp_path) == []
    assert {p.name for p in tmp_path.iterdir()} == {other.name, *names}


def test_unpacking_that_was_cut_short_is_known_by_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = unpack(tmp_path, os.getppid(), "own000")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", str(own), raising=False)
    partial, foreign = unpack(tmp_path, suffix="part00"), unpack(tmp_path, suffix="other0")
    for directory in (partial, foreign):
        (directory / MARKER).unlink()
    (foreign / "tkinter").mkdir()
    age(partial)
    age(foreign)
    assert sweep(tmp_path) == [partial.name]
    assert {p.name for p in tmp_path.iterdir()} == {own.name, foreign.name}


def test_a_pid_that_is_ours_now_was_another_ones_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the bootloader is process 1 each time."""
    own = unpack(tmp_path, os.getppid(), "own000")
    left = unpack(tmp_path, os.getppid(), "left00")
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(sys, "_MEIPASS", str(own), raising=False)
    assert sweep(tmp_path) == [left.name]
    assert own.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links and locks")
def test_links_are_not_followed(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / MARKER).touch()
    (treasure / "gold").touch()
    temp = tmp_path / "temp"
    temp.mkdir()
    (temp / f"_MEI{DEAD:08x}linked").symlink_to(treasure)
    left = unpack(temp)
    (left / "inside").symlink_to(treasure)
    age(left)
    assert sweep(temp) == [left.name]
    assert {p.name for p in treasure.iterdir()} == {MARKER, "gold"}
    assert [p.name for p in temp.iterdir()] == [f"_MEI{DEAD:08x}linked"]


@pytest.mark.skipif(sys.platform == "win32", reason="owners")
def test_another_users_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = unpack(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: left.stat().st_uid + 1)
    assert sweep(tmp_path) == []
    assert left.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="locks")
def test_what_a_process_of_another_namespace_holds_stays(tmp_path: Path) -> None:
    left = unpack(tmp_path)
    code = f"from cortex_embed.litter import *; hold(__import__('pathlib').Path({str(left)!r}))\n"
    code += "print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert sweep(tmp_path) == []
        assert len(list(left.iterdir())) == 3
        holder.kill()
    assert sweep(tmp_path) == [left.name]


def test_hold_does_without_a_marker(tmp_path: Path) -> None:
    assert hold(tmp_path) is None


def test_a_fresh_one_is_judged_a_second_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could be a bootloader of another namespace that is just unpacking."""
    monkeypatch.setattr(litter, "_SETTLED", 0.3)
    busy, left = unpack(tmp_path, suffix="busy00"), unpack(tmp_path, old=False)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            os.utime(busy)
            time.sleep(0.01)

    os.utime(busy)
    worker = threading.Thread(target=work)
    worker.start()
    try:
        assert sweep(tmp_path) == [left.name]
    finally:
        stop.set()
        worker.join()
    assert busy.exists()


def test_many_sweepers_at_once(tmp_path: Path) -> None:
    for number in range(20):
        unpack(tmp_path, suffix=f"{number:06}")
    code = "import sys; from pathlib import Path; from cortex_embed.litter import sweep; "
    code += "input(); sweep(Path(sys.argv[1]))"
    sweepers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(4)
    ]
    for sweeper in sweepers:
        assert sweeper.stdin is not None
        sweeper.stdin.write(b"\n")
        sweeper.stdin.flush()
    for sweeper in sweepers:
        _, errors = sweeper.communicate(timeout=30)
        assert (sweeper.returncode, errors) == (0, b"")
    assert list(tmp_path.iterdir()) == []


def test_no_temp_directory_is_no_error(tmp_path: Path) -> None:
    assert sweep(tmp_path / "none") == []
    remove_tree(tmp_path / "none")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions")
def test_what_cannot_be_removed_stays_known_as_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = unpack(tmp_path)
    unlink = os.unlink

    def refuse(path: str, **more: int) -> None:
        if path == "multiarray.so":
            raise PermissionError
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", refuse)
    assert sweep(tmp_path) == []
    assert (left / MARKER).exists()
    monkeypatch.undo()
    age(left)
    assert sweep(tmp_path) == [left.name]
