"""The start's table: what is measured is a real process, here the source's own."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import start_time
from cortex_embed.models.artifact import Artifact

APP = Path(__file__).resolve().parents[2] / "app"


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_a_real_start_has_its_moments_in_order(tiny_mean: Artifact, tmp_path: Path) -> None:
    exe = script(
        tmp_path / "exe", f'PYTHONPATH="{APP}" exec "{sys.executable}" -m cortex_embed "$@"'
    )
    home = tmp_path / "home"
    home.mkdir()
    start = start_time.measure(exe, home, ["--model", str(tiny_mean.directory)])
    assert 0 < start.listening <= start.answering <= start.vector
    assert start.peak_mb > 10
    row = start_time.report("one", [start, start])
    assert row.count("|") == start_time.HEAD.splitlines()[0].count("|")
    assert f"{start.vector * 1000:.0f}" in row


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_a_program_that_ends_is_named_with_its_words(tmp_path: Path) -> None:
    exe = script(tmp_path / "exe", "echo broken >&2; exit 3")
    with pytest.raises(RuntimeError, match=r"ended with 3(.|\n)*broken"):
        start_time.measure(exe, tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_children_of_this_process_are_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in start_time.children(os.getpid())
        assert child.stdin is not None
        child.stdin.write(b"\n")
    assert start_time.peak_mb(os.getpid()) > 1
