"""What the archives of a release hold: every disagreement is said.

As in test_check.py, each test mutates one thing of a good copy (fake_release.py).
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import targets
from release import sums
from tests.release import fake_release
from tests.release.fake_release import Release

if TYPE_CHECKING:
    pass

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its executable is a shell script")


def _text(release: Release, text: str) -> Path:
    path = release.root.parent / "another"
    path.write_text(text, encoding="utf-8")
    return path


Files = dict[str, Path]
CONTENTS: list[tuple[Callable[[Release, Files], object], str]] = [
    (lambda _, f: f.pop("LICENSE"), "lacks LICENSE"),
    (lambda _, f: f.pop("README.md"), "lacks README.md"),
    (lambda _, f: f.pop("THIRD-PARTY-LICENSES.txt"), "lacks THIRD-PARTY-LICENSES.txt"),
    (lambda r, f: f.update({"LICENSE": _text(r, "other")}), "has another LICENSE than this tree"),
    (lambda r, f: f.update({"README.md": _text(r, "other")}), "has another README.md than this"),
    (
        lambda r, f: f.update({"THIRD-PARTY-LICENSES.txt": _text(r, " ")}),
        "has an empty THIRD-PARTY",
    ),
    (lambda r, f: f.update({"surprise.txt": _text(r, "x")}), "holds 'surprise.txt', which no"),
]


@pytest.mark.parametrize("system", ["tar", "zip"])
@pytest.mark.parametrize("form", targets.FORMS)
@pytest.mark.parametrize(("change", "says"), CONTENTS, ids=[says for _, says in CONTENTS])
def test_contents(
    release: Release, change: Callable[[Release, Files], object], says: str,
    form: targets.Form, system: str,
) -> None:  # fmt: skip
    target = release.target(system)
    files = fake_release.files_of(release, target, form)
    change(release, files)
    fake_release.write(release, target, form, files)
    sums.write(release.directory)
    assert f"{target.asset(form)} {says}" in release.say()


@pytest.mark.parametrize("system", ["tar", "zip"])
def test_forms_that_are_swapped(release: Release, system: str) -> None:
    target = release.target(system)
    files = fake_release.files_of(release, target, "onedir")
    fake_release.write(release, target, "full", files)
    fake_release.write(release, target, "onedir", {k: v for k, v in files.items() if "/" not in k})
    sums.write(release.directory)
    said = release.say()
    assert f"{target.asset('full')} has files in _internal/, but is the full form" in said
    assert f"{target.asset('onedir')} has nothing in _internal/, but is the onedir form" in said


@pytest.mark.parametrize("system", ["tar", "zip"])
def test_files_that_the_sbom_does_not_know(release: Release, system: str) -> None:
    target = release.target(system)
    files = fake_release.files_of(release, target, "onedir")
    files["_internal/libz.so.1"] = _text(release, "changed")
    files["_internal/more.so"] = _text(release, "more")
    fake_release.write(release, target, "onedir", files)
    sums.write(release.directory)
    said = release.say()
    assert "has libz.so.1 with SHA-256" in said
    assert "differ over more.so: the SBOM does not list it" in said


def test_a_top_directory_of_another_name(release: Release) -> None:
    target = release.target("tar")
    (release.directory / target.asset("slim")).replace(release.directory / target.asset("full"))
    fake_release.pack(release, target)
    (release.directory / target.asset("full")).write_bytes(
        (release.directory / target.asset("slim")).read_bytes()
    )
    sums.write(release.directory)
    top = target.asset("full").removesuffix(".tar.gz")
    assert f"outside of its top directory {top}/" in release.say()


def test_modes_and_links_of_a_tar(release: Release) -> None:
    target = release.target("tar")
    path = release.directory / target.asset("full")
    with tarfile.open(path) as tar:
        held = [(m, tar.extractfile(m) if m.isfile() else None) for m in tar.getmembers()]
        rewritten = [(m, file.read() if file else None) for m, file in held]
    with tarfile.open(path, "w:gz") as tar:
        for member, content in rewritten:
            if member.name.endswith(target.exe):
                member.mode = 0o644
            tar.addfile(member, io.BytesIO(content) if content is not None else None)
        link = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "../../etc/passwd"
        tar.addfile(link)
    sums.write(release.directory)
    said = release.say()
    assert f"has {target.exe} with mode 644, not 755" in said
    assert "to ../../etc/passwd, which is not in it" in said


def test_an_executable_of_another_version_says_so_itself(release: Release) -> None:
    """Only of this machine's target, which is the only one that can be asked."""
    target = targets.here(release.table)
    exe = fake_release.files_of(release, target, "slim")[target.exe]
    exe.write_bytes(exe.read_bytes().replace(b"1.2.3", b"1.2.2"))
    fake_release.write(release, target, "slim", fake_release.files_of(release, target, "slim"))
    sums.write(release.directory)
    assert "says 'cortex-embed 1.2.2' (exit code 0), __version__ is 1.2.3" in release.say()
