"""Every way in which a release can disagree with itself is said; the good copy passes.

Each test mutates one thing of a good copy (fake_release.py), and names both values that the
message must.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import targets
from release import check, package, sums
from tests.release import fake_release
from tests.release.fake_release import VERSION, Release

if TYPE_CHECKING:
    from targets import Target

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="its executable is a shell script")


def test_the_good_copy_agrees(release: Release) -> None:
    assert release.say() == ""
    assert release.say(repository="cortex-embed/cortex-embed") == ""


@pytest.mark.parametrize(
    ("tag", "says"),
    [
        ("v1.2.4", "The tag is v1.2.4, __version__ is 1.2.3"),
        ("1.2.3", "The tag is '1.2.3'"),
        ("v1.2.3-rc.1", "not v0.1.0-rc.1"),
        ("v1.2", "The tag is 'v1.2'"),
        ("v1.2.3+local", "The tag is 'v1.2.3+local'"),
    ],
)
def test_tag(release: Release, tag: str, says: str) -> None:
    assert says in release.say(tag=tag)


def test_a_pre_release_has_the_wheels_spelling(release: Release) -> None:
    release.edit("app/cortex_embed/__init__.py", VERSION, "1.2.3rc1")
    release.edit("CHANGELOG.md", "[1.2.3] -", "[1.2.3rc1] -")
    release.edit("CHANGELOG.md", "[1.2.3]:", "[1.2.3rc1]:")
    release.edit("CHANGELOG.md", "...v1.2.3", "...v1.2.3rc1")
    tree = check.Tree(release.root, "v1.2.3rc1", release.table, None)
    assert check.disagreements(tree, None) == []
    spelled = check.Tree(release.root, "v1.2.3-rc.1", release.table, None)
    assert "v1.2.3-rc.1" in check.disagreements(spelled, None)[0]


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "[1.2.3] - 2026-01-02",
            "[1.2.4] - 2026-01-02",
            "begins with [1.2.4], __version__ is 1.2.3",
        ),
        ("## [1.2.3] - 2026-01-02", "## 1.2.3 (2026)", "heading '1.2.3 (2026)' is not"),
        ("2026-01-02", "2.1.2026", "dates [1.2.3] '2.1.2026', not YYYY-MM-DD"),
        (" - 2026-01-02", "", "dates [1.2.3] None"),
        ("2026-01-02", "2026-02-30", "dates [1.2.3] '2026-02-30'"),
        ("2026-01-02", "2999-01-01", "2999-01-01, which is yet to come"),
        ("### Added\n\n- What is new.", "### Added", "section [1.2.3] is empty"),
        ("## [Unreleased]\n", "## [Unreleased]\n\n- More.\n", "'- More.' under [Unreleased]"),
        ("[1.2.2] - 2026-01-01", "[1.3.0] - 2026-01-01", "[1.2.3] above [1.3.0]"),
        ("[1.2.2] - 2026-01-01", "[1.2.3] - 2026-01-01", "two sections [1.2.3]"),
        ("[1.2.2] - 2026", "[older] - 2026", "Invalid version: 'older'"),
        ("compare/v1.2.2...v1.2.3", "compare/v1.2.2...v1.2.2", "link of [1.2.3]"),
        (
            "cortex-embed/cortex-embed",
            "somebody/else",
            "link of [1.2.3] is https://github.com/some",
        ),
    ],
)
def test_changelog(release: Release, old: str, new: str, says: str) -> None:
    release.edit("CHANGELOG.md", old, new)
    assert says in release.say()


def test_unreleased_belongs_above(release: Release) -> None:
    release.edit("CHANGELOG.md", "## [Unreleased]\n\n", "")
    assert release.say() == ""
    release.edit("CHANGELOG.md", "## [1.2.2]", "## [Unreleased]\n\n## [1.2.2]")
    assert "[Unreleased] below [1.2.3]" in release.say()


def test_a_changelog_without_versions(release: Release) -> None:
    (release.root / "CHANGELOG.md").write_text("# Changelog\n", encoding="utf-8")
    assert "no section of a version; 1.2.3" in release.say()
    assert "There are no release notes" in release.say()


def test_readme_lacks_a_row_of_the_table(release: Release) -> None:
    row = release.table.downloads().splitlines()[-1]
    release.edit("README.md", row + "\n", "")
    assert f"lack the row {row[:60]!r}" in release.say()


def test_readme_has_a_row_that_the_table_has_not(release: Release) -> None:
    release.edit("README.md", "<!-- /downloads", "| Amiga | x |\n<!-- /downloads")
    assert "'| Amiga | x |'" in release.say()


def test_readme_without_the_block(release: Release) -> None:
    release.edit("README.md", "<!-- downloads -->", "")
    assert release.say().count("downloads lack the row") == len(release.table.targets) + 2


@pytest.mark.parametrize(
    ("script", "old", "new", "says"),
    [
        (
            "install.ps1",
            "slim-windows-x64",
            "slim-windows-arm64",
            "knows cortex-embed-slim-windows-arm64",
        ),
        (
            "install.ps1",
            "slim-windows-x64.zip",
            "",
            "does not know cortex-embed-slim-windows-x64.zip",
        ),
    ],
)
def test_install_scripts(release: Release, script: str, old: str, new: str, says: str) -> None:
    release.edit(f"build/install/{script}", old, new)
    assert f"{script} {says}" in release.say()


def test_an_install_script_that_is_missing(release: Release) -> None:
    (release.root / "build" / "install" / "install.sh").unlink()
    assert "install.sh is missing" in release.say()


def test_another_repository(release: Release) -> None:
    said = release.say(repository="a/fork")
    assert "runs in a/fork, targets.toml says cortex-embed/cortex-embed" in said


def _missing(release: Release, target: Target) -> str:
    (release.directory / target.asset("slim")).unlink()
    return f"states {target.asset('slim')}, which is not in"


def _extra(release: Release, _: Target) -> str:
    (release.directory / "extra.txt").write_text("x", encoding="utf-8")
    return "extra.txt is in"


def _wrong_hash(release: Release, target: Target) -> str:
    with (release.directory / target.asset("slim")).open("ab") as file:
        file.write(b"x")
    return f"{target.asset('slim')} has SHA-256"


def _malformed(release: Release, _: Target) -> str:
    file = release.directory / targets.SUMS
    file.write_bytes(file.read_bytes() + b"abc *file\n")
    return "is 'abc *file', not `<SHA-256>  <name>`"


def _twice(release: Release, target: Target) -> str:
    file = release.directory / targets.SUMS
    file.write_bytes(file.read_bytes() + file.read_bytes())
    return f"states {target.sbom} a second time"


def _no_sums(release: Release, _: Target) -> str:
    (release.directory / targets.SUMS).unlink()
    return "SHA256SUMS is missing"


def _empty_sums(release: Release, _: Target) -> str:
    (release.directory / targets.SUMS).write_bytes(b"")
    return "SHA256SUMS is empty"


def _no_text_sums(release: Release, _: Target) -> str:
    (release.directory / targets.SUMS).write_bytes(b"\xff\xfe")
    return "SHA256SUMS is no text"


@pytest.mark.parametrize("system", ["tar", "zip"])
@pytest.mark.parametrize(
    "mutate",
    [_missing, _extra, _wrong_hash, _malformed, _twice, _no_sums, _empty_sums, _no_text_sums],
)
def test_sums(release: Release, mutate: Callable[[Release, Target], str], system: str) -> None:
    says = mutate(release, release.target(system))
    assert says in release.say()


def _asset_of_table(release: Release, target: Target) -> str:
    (release.directory / target.sbom).unlink()
    return f"{target.sbom} of {target.name} is not in"


def _rehearsal_note(release: Release, _: Target) -> str:
    (release.directory / package.REHEARSAL).write_text("x", encoding="utf-8")
    return "REHEARSAL.txt says that this is no release"


def _rehearsal_bill(release: Release, target: Target) -> str:
    path = release.directory / target.sbom
    bill = json.loads(path.read_text(encoding="utf-8"))
    bill["metadata"]["properties"].append({"name": "cortex-embed:rehearsal", "value": "x"})
    path.write_text(json.dumps(bill), encoding="utf-8")
    return f"{target.sbom} says that it is a rehearsal's"


def _bill_version(release: Release, target: Target) -> str:
    fake_release.pack(release, target, version="1.2.2")
    return f"{target.sbom} is of version 1.2.2, __version__ is 1.2.3"


def _bill_target(release: Release, target: Target) -> str:
    fake_release.pack(release, target, named="amiga-x64")
    return f"{target.sbom} is of amiga-x64, not of {target.name}"


def _bill_model(release: Release, target: Target) -> str:
    fake_release.pack(release, target, repo="a/b")
    return f"{target.sbom} lists the models ['a/b'], targets.toml wants BAAI/bge-small-en-v1.5"


def _bill_invalid(release: Release, target: Target) -> str:
    (release.directory / target.sbom).write_text('{"bomFormat": "CycloneDX"}', encoding="utf-8")
    return f"{target.sbom} is not CycloneDX 1.6"


def _model(release: Release, target: Target) -> str:
    fake_release.pack(release, target, model="another")
    return f"{target.asset('full')} carries the model another, targets.toml wants bge-small-en-v1.5"


def _no_model(release: Release, target: Target) -> str:
    fake_release.pack(release, target, model=None)
    return f"{target.asset('full')} carries the model None"


def _slim_model(release: Release, target: Target) -> str:
    fake_release.pack(release, target, slim_model="bge-small-en-v1.5")
    return "carries the model bge-small-en-v1.5; the slim form carries none"


def _no_archive(release: Release, target: Target) -> str:
    (release.directory / target.asset("full")).write_bytes(b"nothing packed")
    return f"{target.asset('full')} cannot be read"


def _damaged(release: Release, target: Target) -> str:
    exe = fake_release.files_of(release, target, "full")[target.exe]
    exe.write_bytes(exe.read_bytes()[:60])
    files = fake_release.files_of(release, target, "full")
    fake_release.write(release, target, "full", files)
    return f"{target.asset('full')} carries the model of a damaged executable"


@pytest.mark.parametrize("system", ["tar", "zip"])
@pytest.mark.parametrize(
    "mutate",
    [
        _asset_of_table, _rehearsal_note, _rehearsal_bill, _bill_version, _bill_target, _bill_model,
        _bill_invalid, _model, _no_model, _slim_model, _no_archive, _damaged,
    ],
)  # fmt: skip
def test_assets(release: Release, mutate: Callable[[Release, Target], str], system: str) -> None:
    says = mutate(release, release.target(system))
    sums.write(release.directory)
    assert says in release.say()


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"version": "1.2.2"}, "is of version 1.2.2, __version__ is 1.2.3"),
        ({"optionalDependencies": {}}, "does not ask for windows-x64"),
        ({"optionalDependencies": {"@cortex-embed/amiga-x64": "1"}}, "asks for amiga-x64"),
    ],
)
def test_the_npm_wrapper(release: Release, facts: dict[str, object], says: str) -> None:
    good = {f"@cortex-embed/{target.name}": VERSION for target in release.table.targets}
    path = release.directory / f"cortex-embed-{VERSION}.tgz"
    for more, expected in (({}, ""), (facts, says)):
        content = json.dumps({"version": VERSION, "optionalDependencies": good} | more).encode()
        with tarfile.open(path, "w:gz") as tar:
            info = tarfile.TarInfo("package/package.json")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        sums.write(release.directory)
        said = release.say()
        assert expected in said if expected else said == ""


def test_a_rehearsal_may_carry_another_model(release: Release) -> None:
    for target in release.table.targets:
        fake_release.pack(release, target, model="another", repo="a/b")
    _rehearsal_note(release, release.target("tar"))
    _rehearsal_bill(release, release.target("tar"))
    sums.write(release.directory)
    assert "wants bge-small-en-v1.5" in release.say()
    assets = release.assets()
    as_rehearsal = type(assets)(**(vars(assets) | {"rehearsal": True}))
    assert check.disagreements(release.tree(), as_rehearsal) == []


def test_all_are_said_at_once(
    release: Release, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setattr(check, "ROOT", release.root)
    monkeypatch.setattr(targets, "load", lambda: release.table)
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    notes = tmp_path / "notes.md"
    directory = str(release.directory)
    assert check.main([f"v{VERSION}", "--assets", directory, "--notes", str(notes)]) == 0
    assert "these agree: tag and version, changelog" in capsys.readouterr().out
    assert notes.read_text(encoding="utf-8") == "### Added\n\n- What is new.\n"
    notes.unlink()
    monkeypatch.setenv("GITHUB_REPOSITORY", "a/fork")
    (release.directory / targets.SUMS).unlink()
    assert check.main(["v9.9.9", "--assets", directory, "--notes", str(notes)]) == 1
    said = capsys.readouterr().err
    assert "v9.9.9 cannot be released: 3 disagreements." in said
    assert not notes.exists()


def test_this_tree_agrees_but_for_what_its_tag_will_settle(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person would be told who tags this tree now: only of entries under [Unreleased]."""
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    from cortex_embed import __version__

    check.main([f"v{__version__}"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("- ")]
    assert [line for line in lines if "[Unreleased]" not in line] == []
