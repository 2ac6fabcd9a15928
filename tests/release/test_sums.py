"""SHA256SUMS is what `sha256sum -c` takes. What it refuses is in test_check.py."""

from __future__ import annotations

import shutil
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

import targets
from release import sums


def test_lines_are_sorted_and_of_all_files_but_itself(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", targets.SUMS):
        (tmp_path / name).write_text(name, encoding="utf-8")
    made = sums.write(tmp_path)
    digests = {name: sha256(name.encode()).hexdigest() for name in ("a.txt", "b.txt")}
    assert made == digests
    text = (tmp_path / targets.SUMS).read_bytes()
    assert text == "".join(f"{digests[n]}  {n}\n" for n in sorted(digests)).encode()
    assert sums.read(tmp_path) == (digests, [])
    assert sums.disagreements(tmp_path) == []


@pytest.mark.skipif(not shutil.which("sha256sum"), reason="no sha256sum on this system")
def test_sha256sum_agrees(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0\r\n")
    sums.write(tmp_path)
    command = ["sha256sum", "--check", "--strict", targets.SUMS]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert done.stdout == "a.txt: OK\n"


@pytest.mark.parametrize("name", ["with space", "new\nline"])
def test_a_name_that_no_asset_can_have(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match="cannot be a release asset"):
        sums.write(tmp_path)


def test_a_directory_is_no_asset(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    with pytest.raises(ValueError, match="directory cannot be a release asset"):
        sums.write(tmp_path)
