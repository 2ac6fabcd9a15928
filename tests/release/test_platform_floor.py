"""The floor is read from real libraries."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec
import pytest

import glibc_floor

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("objdump") is None, reason="reads ELF with objdump"
)


def test_the_floor_of_a_wheels_library(capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = Path(str(msgspec.__file__)).parent.glob("_core*.so")
    version, where, symbols = glibc_floor.floor(path)
    assert where == path
    assert (2, 2) <= version <= (2, 40)
    assert symbols
    assert glibc_floor.main([str(path), "--at-most", "2.1"]) == 1
    assert glibc_floor.main([str(path.parent), "--at-most", "9.9"]) == 0
    assert "GLIBC_2." in capsys.readouterr().out


def test_a_directory_without_libraries_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text.so").write_text("not ELF", encoding="utf-8")
    with pytest.raises(ValueError, match="empty"):
        glibc_floor.floor(tmp_path)
