"""What a service manager starts: this program, by a path that stays."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from cortex_embed.errors import UsageError
from cortex_embed.managers import program


def test_a_package_is_started_by_the_python_that_it_is_in() -> None:
    # Not its target: what is behind a virtual environment's link knows nothing of the package.
    assert program.program() == (sys.executable, "-m", "cortex_embed")


def test_an_executable_is_started_by_its_own_path_or_the_link_that_outlives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if sys.platform == "win32":
        pytest.skip("links need rights there")
    exe = tmp_path / "Cellar" / "1.0" / "cortex-embed"
    exe.parent.mkdir(parents=True)
    exe.touch(0o755)
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir()
    monkeypatch.setattr("sys.frozen", True, raising=False)
    monkeypatch.setattr("sys.executable", str(exe))
    monkeypatch.setenv("PATH", str(bin_dir))
    assert program.program() == (str(exe),)
    (bin_dir / "cortex-embed").symlink_to(exe)
    assert program.program() == (str(bin_dir / "cortex-embed"),)
    (bin_dir / "cortex-embed").unlink()
    (bin_dir / "cortex-embed").touch(0o755)  # another one: not this program
    assert program.program() == (str(exe),)


def test_what_the_system_empties_is_no_place_for_a_service(tmp_path: Path) -> None:
    assert "which is emptied by the system" in program.passing((f"{tmp_path}/cortex-embed",))
    assert tempfile.gettempdir() in program.passing((f"{tempfile.gettempdir()}/x", "-m", "y"))
    assert program.passing(("/usr/local/bin/cortex-embed",)) == ""


def test_it_is_tried_as_the_manager_will(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[tuple[list[str], str, bool]] = []

    def run(
        command: list[str], *, cwd: str, env: dict[str, str], **_: object
    ) -> subprocess.CompletedProcess[str]:
        tried.append((command, cwd, "PYTHONPATH" in env))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setenv("PYTHONPATH", "app")
    monkeypatch.setattr("subprocess.run", run)
    program.must_start(("/opt/x", "-m", "cortex_embed"))
    assert tried == [(["/opt/x", "-m", "cortex_embed", "--version"], "/", False)]


def test_a_program_that_starts_only_in_this_shell_is_refused() -> None:
    with pytest.raises(UsageError, match="does not start outside this shell") as caught:
        program.must_start((sys.executable, "-m", "no_such_package"))
    assert "No module named no_such_package" in caught.value.message
