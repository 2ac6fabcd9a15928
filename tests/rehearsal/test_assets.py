"""What `nox -s package` made, as a stranger has it: unpacked, summed up, run, read.

Needs dist/release: `nox -s package`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

import targets
from cortex_embed import __version__
from release import archive, check, licences, package, sbom
from release.inventory import hashes

RELEASE = package.OUT
TARGET = targets.here(targets.load())
# What makes a bundle, or is there to try it: never in one.
FOREIGN = {"pip", "hatchling", "onnx", "setuptools", "safetensors", "pytest", "protobuf",
           "cyclonedx-python-lib", "pyinstaller-hooks-contrib", "hf-xet", "ml-dtypes",
           "editables", "ziglang"}  # fmt: skip
SLIM = pytest.mark.parametrize("unpacked", ["slim"], indirect=True)
WITH_MODEL = pytest.mark.parametrize("unpacked", ["full", "onedir"], indirect=True)
ONEDIR = pytest.mark.parametrize("unpacked", ["onedir"], indirect=True)


@pytest.fixture(scope="session", params=targets.FORMS)
def unpacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The one top directory of an archive, by the system's own tar where it is one."""
    name = TARGET.asset(request.param)
    there = tmp_path_factory.mktemp(request.param)
    if TARGET.archive == "tar.gz":
        subprocess.run(["tar", "-xzf", str(RELEASE / name), "-C", str(there)], check=True)
    else:
        shutil.unpack_archive(RELEASE / name, there)
    (top,) = there.iterdir()
    assert top.name == archive.stem(name)
    return top


@pytest.fixture(scope="session")
def bill() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RELEASE / TARGET.sbom).read_text(encoding="utf-8"))
    return document


def run(top: Path, home: Path, *arguments: str) -> str:
    """stdout, with a home and a PATH of nothing."""
    environment = {"HOME": str(home), "PATH": "/nonexistent", "TMPDIR": str(home)}
    if os.name == "nt":
        environment |= {k: os.environ[k] for k in ("SYSTEMROOT", "TEMP", "TMP")}
    done = subprocess.run(
        [str(top / TARGET.exe), *arguments], env=environment, cwd=home, capture_output=True,
        text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_rehearsal() -> bool:
    return (RELEASE / package.REHEARSAL).exists()


def test_sha256sum_takes_the_sums() -> None:
    command = ["sha256sum", "--check", "--strict", targets.SUMS]
    done = subprocess.run(command, cwd=RELEASE, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {line.partition(": ")[0] for line in done.stdout.splitlines()} >= set(TARGET.assets)


def test_release_check_takes_them(capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--assets", str(RELEASE), "--this-target"]
    flags += ["--rehearsal"] if is_rehearsal() else []
    code = check.main([f"v{__version__}", *flags])
    said = capsys.readouterr()
    # While a version is in the making, the changelog is ahead of its tag: that, and nothing else.
    wrong = [line for line in said.err.splitlines() if line.startswith("- ")]
    assert [line for line in wrong if "[Unreleased]" not in line] == []
    assert code == (1 if wrong else 0)


def test_a_rehearsal_is_refused_as_a_release(capsys: pytest.CaptureFixture[str]) -> None:
    if not is_rehearsal():
        pytest.skip("dist/release is a release, not a rehearsal")
    assert check.main([f"v{__version__}", "--assets", str(RELEASE), "--this-target"]) == 1
    said = capsys.readouterr().err
    assert "says that this is no release" in said
    assert "says that it is a rehearsal's" in said
    assert f"carries the model all-minilm-l6-v2, targets.toml wants {package_model()}" in said


def package_model() -> str:
    return targets.load().release.model


def test_it_says_its_version(unpacked: Path, tmp_path: Path) -> None:
    assert run(unpacked, tmp_path, "--version") == f"cortex-embed {__version__}\n"


@WITH_MODEL
def test_it_passes_its_selftest(unpacked: Path, tmp_path: Path) -> None:
    said = run(unpacked, tmp_path, "selftest")
    assert re.search(r"All \d+ checks passed", said.splitlines()[-1])


@SLIM
def test_the_slim_form_says_which_model_it_would_need(unpacked: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [str(unpacked / TARGET.exe), "embed", "x"], capture_output=True, text=True,
        env={"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "CORTEX_EMBED_OFFLINE": "true"},
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert package_model() in done.stderr
    assert "Traceback" not in done.stderr


def test_what_lies_beside_the_executable(unpacked: Path) -> None:
    names = {path.name for path in unpacked.iterdir()}
    extra = {"_internal"} if "onedir" in unpacked.name else set()
    assert names == {TARGET.exe, "LICENSE", "README.md", licences.FILE} | extra
    assert (unpacked / TARGET.exe).stat().st_mode & 0o777 == 0o755
    assert (unpacked / "LICENSE").stat().st_mode & 0o777 == 0o644


def test_the_sbom_is_valid(bill: dict[str, Any]) -> None:
    assert sbom.validate(json.dumps(bill)) is None
    assert bill["metadata"]["component"]["version"] == __version__


@ONEDIR
def test_every_file_has_a_component_and_every_component_something(
    bill: dict[str, Any], unpacked: Path
) -> None:
    launcher = "cortex-embed-onedir" + Path(TARGET.exe).suffix
    found = {
        (launcher if name == TARGET.exe else name): digest
        for name, digest in hashes(unpacked).items()
        if name not in {"LICENSE", "README.md", licences.FILE}
    }
    parts = [bill["metadata"]["component"], *bill["components"]]
    owned = {
        file["name"]: file["hashes"][0]["content"]
        for part in parts
        for file in part.get("components", ())
        if file["type"] == "file"
    }
    assert owned == found
    for part in parts:
        modules = [p for p in part.get("properties", ()) if p["name"] == sbom.MODULES]
        files = [c for c in part.get("components", ()) if c["type"] == "file"]
        assert files or modules, part["name"]


def test_modules_of_the_executable_are_those_of_the_sbom(
    bill: dict[str, Any], unpacked: Path
) -> None:
    """Read from the finished executable with PyInstaller's reader, not from the notes."""
    from PyInstaller.archive.readers import CArchiveReader

    content = CArchiveReader(str(unpacked / TARGET.exe))
    (modules,) = (name for name, entry in content.toc.items() if entry[-1] == "z")
    inside = set(content.open_embedded_archive(modules).toc)
    parts = [bill["metadata"]["component"], *bill["components"]]
    stated = {
        name
        for part in parts
        for p in part.get("properties", ())
        if p["name"] == sbom.MODULES
        for name in p["value"].split()
    }
    assert inside <= stated
    # The bootloader's own, and its name for the archive of the others.
    assert {n for n in stated - inside if not n.startswith("pyi")} <= {"struct", "run", "run.exe"}


def test_nothing_that_is_not_in_the_bundle(bill: dict[str, Any]) -> None:
    names = {part["name"] for part in bill["components"]}
    assert not names & FOREIGN
    assert {"cpython", "pyinstaller-bootloader", "openssl", "numpy", "onnxruntime"} <= names
    kinds = [part["type"] for part in bill["components"]]
    assert kinds.count("machine-learning-model") == 1


def test_every_component_s_licence_can_be_read(bill: dict[str, Any], unpacked: Path) -> None:
    text = (unpacked / licences.FILE).read_text(encoding="utf-8")
    rule = "=" * 78
    for part in bill["components"]:
        head = f"{rule}\n{part['name']} {part['version']}\n"
        assert head in text, part["name"]
    for words in ("OpenSSL", "GCC Runtime Library Exception", "OpenBLAS", "libgfortran",
                  "PYTHON SOFTWARE FOUNDATION", "Bootloader Exception", "Apache License",
                  "tiktoken", "onnxruntime/ThirdPartyNotices.txt"):  # fmt: skip
        assert words.lower() in text.lower(), words
    assert all(len(section.strip()) > 80 for section in text.split(rule)[2::2])
