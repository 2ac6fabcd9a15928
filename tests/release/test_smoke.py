"""The smoke test fails for an executable that does not do what it should."""

from __future__ import annotations

import stat
import sys
from pathlib import Path

import pytest

import smoke


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
