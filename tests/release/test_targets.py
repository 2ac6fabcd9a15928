"""The table of release targets, and what is made from it."""

from __future__ import annotations

import json
import platform
import sys
from typing import TYPE_CHECKING

import pytest

import targets

if TYPE_CHECKING:
    from pathlib import Path

ROW = """
[release]
repository = "o/r"
python = "3.13"
model = "m"
[[target]]
name = "{name}"
os = "linux"
arch = "x64"
runner = "r"
container = "{container}"
clean = "{container}"
python_platform = "p"
minimum = "glibc 2.28"
archive = "tar.gz"
"""
IMAGE = "quay.io/i@sha256:" + "0" * 64


def test_the_five_platforms_are_there() -> None:
    assert {target.name for target in targets.load().targets} == {
        "linux-x64", "linux-arm64", "macos-arm64", "macos-x64", "windows-x64",
    }  # fmt: skip


def test_no_two_assets_share_a_name() -> None:
    names = [name for target in targets.load().targets for name in target.assets]
    assert len(set(names)) == len(names)


def test_names_of_assets() -> None:
    target = targets.load().find("windows-x64")
    assert target.asset("full") == "cortex-embed-windows-x64.zip"
    assert target.asset("slim") == "cortex-embed-slim-windows-x64.zip"
    assert target.exe == "cortex-embed.exe"
    assert targets.load().find("linux-x64").minimum_version == (2, 28)


@pytest.mark.parametrize(
    ("name", "container", "says"),
    [
        ("linux-x64", "quay.io/i:latest", "container"),
        ("linux-x32", IMAGE, "must be named linux-x64"),
        ("linux-x64", "", "container"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path: Path, name: str, container: str, says: str) -> None:
    path = tmp_path / "targets.toml"
    path.write_text(ROW.format(name=name, container=container), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        targets.load(path)


def test_an_unknown_target_is_named_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"'linux-mips'.*linux-x64"):
        targets.load().find("linux-mips")


def test_matrix_is_what_github_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert targets.main(["matrix"]) == 0
    rows = json.loads(capsys.readouterr().out)["include"]
    assert [row["target"] for row in rows] == [target.name for target in targets.load().targets]
    assert all(("manylinux" in row["container"]) == ("linux" in row["target"]) for row in rows)


def test_here_is_this_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    assert targets.main(["here"]) == 0
    assert capsys.readouterr().out == "macos-arm64\n"
