"""Assets of a frozen bundle in small; what a release must not be made of is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import freeze
import targets
from cortex_embed import __version__
from cortex_embed.models.store import EMBEDDED_DIR
from release import ReleaseError, archive, check, inventory, licences, package, sums
from release.check_assets import CHECKS, Assets
from tests.release import fake_release

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its executable is a shell script")
MODEL = targets.load().release.model
MINILM = "all-minilm-l6-v2"


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    return make_frozen(tmp_path / "frozen", MODEL)


def make_frozen(frozen: Path, model: str, version: str = __version__) -> Path:
    """What `freeze --release` leaves, with executables in small and no library in it."""
    table = targets.load()
    target = targets.here(table)
    launcher = "cortex-embed-onedir" + Path(target.exe).suffix
    for form, carried in (("full", model), ("slim", None)):
        base = frozen / form
        fake_release.executable(base / target.exe, target, version, carried)
        fake_release.executable(base / "onedir" / launcher, target, version, None)
    full = frozen / "full"
    manifest = full / ".work" / "model" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps({"id": model}), encoding="utf-8")
    embedded = full / "onedir" / "_internal" / "cortex_embed" / "embedded"
    embedded.mkdir(parents=True)
    shutil.copyfile(manifest, embedded / "manifest.json")
    app = inventory.ROOT / "app" / "cortex_embed"
    base_library = str(full / ".work" / "base_library.zip")
    (full / "onedir" / "_internal" / "base_library.zip").touch()
    contents = {
        "files": [
            (launcher, str(full / ".work" / launcher), "EXECUTABLE"),
            ("base_library.zip", base_library, "DATA"),
            ("cortex_embed/embedded/manifest.json", str(manifest), "DATA"),
        ],
        "modules": [("cortex_embed.cli", str(app / "cli.py"))],
        "bootstrap": [], "bootloader": [],
    }  # fmt: skip
    (full / ".work" / "contents.json").write_text(json.dumps(contents), encoding="utf-8")
    return frozen


@pytest.fixture(autouse=True)
def no_library_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform_floor.check", lambda *_: ("glibc 2.28 (x), within", True))


@pytest.fixture(autouse=True)
def model_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest in small names a model; its files are not read."""

    def component(directory: Path) -> inventory.Component:
        name = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))["id"]
        repo = package.repository_of(name)
        texts = inventory.model_text(repo, "mit")
        return inventory.Component("machine-learning-model", repo, "1", "MIT", texts=texts)

    monkeypatch.setattr(inventory, "model", component)


def main(frozen: Path, out: Path, *more: str) -> int:
    return package.main(["--from", str(frozen), "--out", str(out), *more])


def test_assets_that_release_check_takes(
    frozen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "release"
    assert main(frozen, out, "--release") == 0
    target = targets.here(targets.load())
    assert {path.name for path in out.iterdir()} == {*target.assets, targets.SUMS}
    assets = Assets(out, check.ROOT, targets.load(), (target,), __version__, rehearsal=False)
    wrong = [s for one in CHECKS for s in one(assets)]
    assert wrong == []
    said = capsys.readouterr().out
    assert "REHEARSAL" not in said
    for form in targets.FORMS:
        with archive.reading(out / target.asset(form)) as reader:
            names = {m.name.partition("/")[2] for m in reader.members() if not m.is_directory}
        texts = {target.exe, "LICENSE", "README.md", licences.FILE}
        more = {"_internal/base_library.zip", "_internal/cortex_embed/embedded/manifest.json"}
        assert names == texts | (more if form == "onedir" else set())


def test_packaging_twice_gives_the_same_bytes(frozen: Path, tmp_path: Path) -> None:
    made = []
    for name in ("one", "two"):
        assert main(frozen, tmp_path / name, "--release") == 0
        made.append((tmp_path / name / targets.SUMS).read_bytes())
    assert made[0] == made[1]


def test_another_model_is_refused_but_as_a_rehearsal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen, out = make_frozen(tmp_path / "frozen", MINILM), tmp_path / "release"
    assert main(frozen, out, "--release") == 1
    assert f"carries {MINILM}, targets.toml wants {MODEL}" in capsys.readouterr().err
    assert not out.exists()
    assert main(frozen, out) == 0
    loud = f"REHEARSAL: this is no release. The full assets carry {MINILM}, not {MODEL}."
    assert loud in capsys.readouterr().out
    assert loud in (out / package.REHEARSAL).read_text(encoding="utf-8")
    assert package.REHEARSAL in sums.read(out)[0]


def test_the_table_s_model_is_no_rehearsal(
    frozen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(frozen, tmp_path / "release") == 1
    assert "say --release" in capsys.readouterr().err


def test_a_newer_system_than_promised_is_said_and_no_release(
    frozen: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    needs = "glibc 2.36 (x), but the table promises glibc 2.28"
    monkeypatch.setattr("platform_floor.check", lambda *_: (needs, False))
    assert main(frozen, tmp_path / "release", "--release") == 1
    assert f"needs {needs}. Freeze it in the table's container." in capsys.readouterr().err
    assert not (tmp_path / "release").exists()
    assert main(make_frozen(tmp_path / "other", MINILM), tmp_path / "release") == 0
    assert f"They need {needs}." in (tmp_path / "release" / package.REHEARSAL).read_text("utf-8")


def test_an_executable_of_another_version_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = make_frozen(tmp_path / "frozen", MODEL, version="0.0.1")
    assert main(frozen, tmp_path / "release", "--release") == 1
    said = capsys.readouterr().err
    assert f"says 'cortex-embed 0.0.1', this tree is {__version__}" in said


def test_nothing_frozen_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(tmp_path, tmp_path / "release") == 1
    assert "does not say which model was frozen" in capsys.readouterr().err


def test_without_from_both_forms_are_frozen_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(freeze, "main", asked.append)
    monkeypatch.setattr(freeze, "FROZEN", tmp_path)
    monkeypatch.setattr(package, "make", lambda *_, **__: None)
    assert package.main([]) == 0
    assert package.main(["--release"]) == 0
    base = ["--release", "--out", str(tmp_path)]
    assert asked == [["--release", "--rehearsal", *base[1:]], base]


def test_sums_over_all_targets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = targets.load()
    for target in table.targets:
        for name in target.assets:
            (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "install.sh").touch()
    assert package.main(["--sums-only", str(tmp_path)]) == 0
    assert len(sums.read(tmp_path)[0]) == 4 * len(table.targets) + 1
    here = targets.here(table)
    other = next(t for t in table.targets if t != here)
    (tmp_path / other.sbom).unlink()
    (tmp_path / targets.SUMS).unlink()
    assert package.main(["--sums-only", str(tmp_path)]) == 1
    assert f"lacks {other.sbom}" in capsys.readouterr().err
    assert not (tmp_path / targets.SUMS).exists()
    assert package.main(["--sums-only", str(tmp_path), "--this-target"]) == 0


def test_this_target_is_for_sums(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        package.main(["--this-target"])
    assert caught.value.code == 2
    assert "--sums-only" in capsys.readouterr().err


def test_a_model_of_no_catalogue() -> None:
    with pytest.raises(ReleaseError, match="nothing is in no catalogue"):
        package.repository_of("nothing")


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--release", "--slim"], "--release makes both forms"),
        (["--release", "--model", "x"], "--release makes both forms"),
        (["--rehearsal"], "--rehearsal is for --release"),
    ],
)
def test_flags_of_freeze_that_exclude_each_other(
    flags: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        freeze.main(flags)
    assert caught.value.code == 2
    assert says in capsys.readouterr().err


def test_a_release_is_frozen_in_both_forms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = []
    monkeypatch.setattr(freeze, "make", lambda out, _, model, __: made.append((out.name, model)))
    monkeypatch.setattr(freeze, "refuse_static_python", lambda: None)
    monkeypatch.setattr("release.model.prepare", lambda name, _: tmp_path / name)
    assert freeze.main(["--release", "--out", str(tmp_path)]) == 0
    assert freeze.main(["--release", "--rehearsal", "--out", str(tmp_path)]) == 0
    assert made == [
        ("full", tmp_path / MODEL), ("slim", None), ("full", EMBEDDED_DIR), ("slim", None),
    ]  # fmt: skip
