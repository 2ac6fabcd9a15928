"""Two builds that differ are told apart, and by what. That ours do not, its session shows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import targets
from release import archive, reproducible
from tests.release import fake_release

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def builds(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal ones: an executable, a release archive of it, and a link."""
    target = targets.load().find("linux-x64")
    made = tmp_path / "one" / "dist", tmp_path / "two" / "dist"
    for dist in made:
        fake_release.executable(dist / "frozen" / "cortex-embed", target, "1.2.3", "a")
        (dist / ".work").mkdir()
        (dist / ".work" / "notes").write_text(str(dist), encoding="utf-8")
        (dist / "zig-cache").mkdir()
        (dist / "zig-cache" / "libc.a").write_text(str(dist), encoding="utf-8")
        _archive(dist)
        (dist / "link").symlink_to("frozen/cortex-embed")
    return made


def _archive(dist: Path) -> None:
    files = {"cortex-embed": dist / "frozen" / "cortex-embed"}
    archive.write(dist / "a.tar.gz", files, executable="cortex-embed", epoch=fake_release.EPOCH)


def test_equal_builds_do_not_differ(builds: tuple[Path, Path]) -> None:
    assert set(reproducible.files(builds[0])) == {"frozen/cortex-embed", "a.tar.gz", "link"}
    assert list(reproducible.differences(*builds)) == []


def _another_model(dist: Path) -> None:
    target = targets.load().find("linux-x64")
    fake_release.executable(dist / "frozen" / "cortex-embed", target, "1.2.3", "b")
    _archive(dist)


def _another_byte(dist: Path) -> None:
    exe = dist / "frozen" / "cortex-embed"
    exe.write_bytes(b"#?" + exe.read_bytes()[2:])


def _another_mode(dist: Path) -> None:
    (dist / "frozen" / "cortex-embed").chmod(0o644)


def _another_link(dist: Path) -> None:
    (dist / "link").unlink()
    (dist / "link").symlink_to("a.tar.gz")


def _one_more(dist: Path) -> None:
    (dist / "more").touch()


def _another_date(dist: Path) -> None:
    files = {"cortex-embed": dist / "frozen" / "cortex-embed"}
    archive.write(dist / "a.tar.gz", files, executable="cortex-embed", epoch=fake_release.EPOCH + 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            _another_model,
            ["cortex-embed: differs in model.blob, plain; first at", "a.tar.gz: diff"],
        ),
        (_another_byte, ["differs outside of its 2 entries; first at byte 1 of"]),
        (_another_mode, ["frozen/cortex-embed may be executed in one of both only"]),
        (_another_link, ["link is another link"]),
        (_one_more, ["more is only in"]),
        (_another_date, ["a.tar.gz: differs outside of its 1 entries"]),
    ],
)
def test_what_differs_is_named(
    builds: tuple[Path, Path], change: Callable[[Path], None], says: list[str]
) -> None:
    change(builds[1])
    said = list(reproducible.differences(*builds))
    assert len(said) == len(says)
    assert all(any(part in line for line in said) for part in says), said


def test_one_build_is_no_comparison(builds: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no two builds"):
        list(reproducible.differences(builds[0], builds[0]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no two builds"):
        list(reproducible.differences(tmp_path / "empty", builds[0]))


def test_an_exit_code_for_each_outcome(
    builds: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproducible, "build", lambda _, number: builds[number])
    assert reproducible.main([]) == 0
    assert "the same, byte by byte: 3 files" in capsys.readouterr().out
    _one_more(builds[1])
    assert reproducible.main([]) == 1
    assert "differ in 1 ways" in capsys.readouterr().err


def test_builds_are_of_different_places_and_surroundings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, steps = [], []

    def run(command: list[str], **options: object) -> None:
        steps.append(command[1:])
        seen.append(options)

    (tmp_path / "tree" / "app" / "__pycache__").mkdir(parents=True)
    (tmp_path / "tree" / "app" / "cortex-kernels-linux-x64.so").touch()
    for name in reproducible._INPUTS:
        if not (tmp_path / "tree" / name).exists():
            (tmp_path / "tree" / name).touch()
    monkeypatch.setattr(reproducible, "ROOT", tmp_path / "tree")
    monkeypatch.setattr("subprocess.run", run)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    one, two = (reproducible.build(tmp_path / "base", number) for number in range(2))
    assert one != two
    assert steps == [["build/compile_kernels.py"], ["-m", "release.package"]] * 2
    assert seen[0] == seen[1]
    assert seen[2] == seen[3]
    assert seen[0]["umask"] != seen[2]["umask"]
    first, second = (s["env"] for s in seen[::2])
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert first["SOURCE_DATE_EPOCH"] == second["SOURCE_DATE_EPOCH"] == "1700000000"
    assert all(first[name] != second[name] for name in ("HOME", "TZ", "PYTHONHASHSEED"))
    assert str(one.parent / "app") in first["PYTHONPATH"].split(os.pathsep)
    assert list((one.parent / "app").iterdir()) == []
