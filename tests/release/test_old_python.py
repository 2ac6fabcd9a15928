"""How CPython is made for an old glibc. `nox -s rooms` makes it."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from release import old_python
from release.chroot import Room, RoomError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(("arch", "version"), [("x64", "2.2.5"), ("arm64", "2.17")])
def test_renewed_functions_are_bound_to_their_oldest_version(arch: str, version: str) -> None:
    text = old_python.header(arch)
    for name in ("exp", "pow", "log"):
        assert f'".symver {name},{name}@GLIBC_{version}"' in text
    assert text.startswith("#ifndef __ASSEMBLER__\n")


@pytest.mark.skipif(shutil.which("cc") is None, reason="compiles C")
def test_the_header_takes_c_and_assembler(tmp_path: Path) -> None:
    (tmp_path / "h.h").write_text(old_python.header("x64"), encoding="utf-8")
    (tmp_path / "a.c").write_text("int f(void) { return 1; }\n", encoding="utf-8")
    (tmp_path / "b.S").write_text(".text\n", encoding="utf-8")
    for name in ("a.c", "b.S"):
        command = ["cc", "-include", "h.h", "-c", name]
        subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "a.o").is_file()
    assert (tmp_path / "b.o").is_file()


def test_configure_of_both_architectures() -> None:
    native = old_python.configure("x64", "3.13", cross=False)
    cross = old_python.configure("arm64", "3.13", cross=True)
    for command in (native, cross):
        assert "--enable-shared" in command
        assert "ac_cv_func_sem_clockwait=no" in command
    assert not [flag for flag in native if flag.startswith("--host")]
    assert {"--host=aarch64-linux-gnu", "--build=x86_64-linux-gnu"} <= set(cross)
    assert "--with-build-python=/opt/python/bin/python3.13" in cross
    assert "CFLAGS=-w -include /opt/source/arm64.h" in cross


def test_a_python_is_made_once_for_each_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(Room, "run", lambda _, *command, **__: ran.append(command))
    room = Room(tmp_path, "x64")
    python = tmp_path / "opt" / "python"
    python.mkdir(parents=True)
    (python / "recipe").write_text(old_python.recipe("3.13"), encoding="utf-8")
    old_python.build(room, "3.13", tmp_path / "log")
    old_python.cross_build(room, "arm64", "3.13", tmp_path / "log", python)
    assert ran == []
    (tmp_path / "etc" / "apt" / "sources.list.d").mkdir(parents=True)
    monkeypatch.setattr(shutil, "copyfile", lambda *_: None)
    with pytest.raises(RoomError, match=r"no one source of Python 3\.14"):
        old_python.build(room, "3.14", tmp_path / "log")
    assert "apt-get" in ran[0]
    row = (tmp_path / "etc/apt/sources.list.d/source.list").read_text(encoding="utf-8")
    assert row.startswith("deb-src [signed-by=/usr/share/keyrings/")
