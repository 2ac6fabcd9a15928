"""The smoke test fails for an executable that does not do what it should."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

import platform_floor
import smoke
import targets


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    exe = tmp_path / "broken"
    exe.write_text(
        '#!/bin/sh\ncase "$1" in --version) echo cortex-embed 0;; *) echo no >&2; exit 3;; esac\n',
        encoding="utf-8",
    )
    exe.chmod(exe.stat().st_mode | stat.S_IXUSR)
    return exe


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_it_stops_at_the_first_thing_that_is_wrong(
    broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert smoke.main(["--exe", str(broken)]) == 1
    out = capsys.readouterr().out
    assert "ok    version: cortex-embed 0" in out
    assert "FAIL  selftest" in out
    assert "exited with 3: no" in out


@pytest.mark.skipif(sys.platform == "win32", reason="the program is a shell script")
def test_a_sidecar_that_is_never_ready_is_an_error(broken: Path, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    one = smoke.Smoke(broken, tmp_path / "scratch")
    with pytest.raises(smoke.SmokeError, match="before it was ready"):
        smoke.sidecar(one)


@pytest.mark.parametrize("release", [True, False])
def test_a_bundle_for_too_new_a_system_fails_in_a_release_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: bool
) -> None:
    one = smoke.Smoke(_exe(tmp_path), tmp_path, release=release)
    monkeypatch.setattr(targets, "here", lambda table: table.targets[0])
    monkeypatch.setattr(platform_floor, "check", lambda *_: ("glibc 2.36 (libx)", False))
    if release:
        with pytest.raises(smoke.SmokeError, match=r"glibc 2\.36"):
            smoke.floor(one)
    else:
        assert smoke.floor(one) == "WARNING: glibc 2.36 (libx)"
    monkeypatch.setattr(platform_floor, "check", lambda *_: ("glibc 2.28 (libx)", True))
    assert smoke.floor(one) == "glibc 2.28 (libx)"


def test_libraries_that_cannot_be_seen_are_no_pass_of_a_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "here", lambda table: table.find("linux-x64"))
    monkeypatch.setattr(platform_floor, "floor", lambda *_: None)
    one = smoke.Smoke(_exe(tmp_path), tmp_path, release=True)
    with pytest.raises(smoke.SmokeError, match="carries its libraries inside"):
        smoke.floor(one)


def _exe(tmp_path: Path) -> Path:
    (tmp_path / "dist").mkdir()
    exe = tmp_path / "dist" / "cortex-embed"
    exe.touch()
    return exe
