"""npm's packages from the table and the release assets, with stand-ins for the executables."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

import targets
from cortex_embed import __version__
from release import ReleaseError, npm, sums

TABLE = targets.load()
NODE = pytest.mark.skipif(
    shutil.which("npm") is None, reason="Node.js is not installed: `npm pack` makes the packages"
)
JAVASCRIPT = sorted(npm.SOURCES.rglob("*.js"))


def contents(target: targets.Target) -> dict[str, bytes]:
    names = (target.exe, *npm.LICENCES, "README.md")
    return {name: f"{name} of {target.name}".encode() for name in names}


def write_archive(directory: Path, target: targets.Target, files: dict[str, bytes]) -> None:
    path = directory / target.asset("full")
    top = path.name.removesuffix(f".{target.archive}")
    if target.archive == "zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, data in files.items():
                zipped.writestr(f"{top}/{name}", data)
        return
    with tarfile.open(path, "w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """A release's full archives, small."""
    directory = tmp_path / "release"
    directory.mkdir()
    for target in TABLE.targets:
        write_archive(directory, target, contents(target))
    sums.write(directory)
    return directory


def members(tarball: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content by name, without npm's `package/`."""
    found = {}
    with tarfile.open(tarball) as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file is not None
            found[member.name.removeprefix("package/")] = (member.mode, file.read())
    return found


def test_the_wrapper_asks_for_every_target_of_the_table_exactly() -> None:
    manifest = npm.wrapper_manifest(TABLE, "1.2.3")
    assert manifest["optionalDependencies"] == {
        f"@cortex-embed/{target.name}": "1.2.3" for target in TABLE.targets
    }
    assert "scripts" not in manifest
    assert "dependencies" not in manifest


def test_each_target_is_for_its_machines_alone() -> None:
    made = {t.name: npm.platform_manifest(TABLE, t, "1.2.3") for t in TABLE.targets}
    only = {name: (m["os"], m["cpu"], m.get("libc")) for name, m in made.items()}
    assert only == {
        "linux-x64": (["linux"], ["x64"], ["glibc"]),
        "linux-arm64": (["linux"], ["arm64"], ["glibc"]),
        "macos-arm64": (["darwin"], ["arm64"], None),
        "macos-x64": (["darwin"], ["x64"], None),
        "windows-x64": (["win32"], ["x64"], None),
    }


def test_provenance_needs_the_tables_repository() -> None:
    manifests = [npm.wrapper_manifest(TABLE, "1.2.3")]
    manifests += [npm.platform_manifest(TABLE, target, "1.2.3") for target in TABLE.targets]
    for manifest in manifests:
        expected = f"git+https://github.com/{TABLE.release.repository}.git"
        assert manifest["repository"] == {"type": "git", "url": expected}
        assert manifest["publishConfig"] == {"access": "public"}


@NODE
def test_a_package_a_target_and_the_wrapper_last(assets: Path, tmp_path: Path) -> None:
    out = tmp_path / "npm"
    out.mkdir()
    (out / "cortex-embed-0.0.9.tgz").touch()
    (out / "cortex-embed-linux-x64-0.0.9.tgz").touch()
    made = npm.make(TABLE, TABLE.targets, assets, out)
    assert [path.name for path in made] == [
        *(f"cortex-embed-{target.name}-{__version__}.tgz" for target in TABLE.targets),
        f"cortex-embed-{__version__}.tgz",
    ]
    assert sorted(out.iterdir()) == sorted(made)  # an older version is gone
    for target, tarball in zip(TABLE.targets, made, strict=False):
        held = members(tarball)
        assert set(held) == {
            f"bin/{target.exe}", "LICENSE", "THIRD-PARTY-LICENSES.txt", "README.md", "package.json",
        }  # fmt: skip
        assert held[f"bin/{target.exe}"] == (0o755, contents(target)[target.exe])
        for name in npm.LICENCES:
            assert held[name] == (0o644, contents(target)[name])
        assert target.minimum in held["README.md"][1].decode()


@NODE
def test_the_wrapper_holds_what_it_needs(tmp_path: Path) -> None:
    (made,) = npm.make(TABLE, [], tmp_path, tmp_path / "npm")
    held = members(made)
    manifest = json.loads(held["package.json"][1])
    assert manifest["version"] == __version__
    named = {manifest["main"], manifest["types"], *manifest["bin"].values()}
    assert named <= set(held)
    assert {path.relative_to(npm.SOURCES).as_posix() for path in JAVASCRIPT} <= set(held)
    assert held["LICENSE"][1] == (npm.ROOT / "LICENSE").read_bytes()


@NODE
def test_the_same_assets_give_the_same_bytes(assets: Path, tmp_path: Path) -> None:
    chosen = [TABLE.find("linux-x64")]
    once, twice = (npm.make(TABLE, chosen, assets, tmp_path / name) for name in ("a", "b"))
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in twice]


@pytest.mark.parametrize("wrong", ["missing", "unlisted", "twice", "changed", "no sums"])
def test_an_asset_that_is_not_as_the_sums_say_is_refused(
    assets: Path, tmp_path: Path, wrong: str
) -> None:
    target = TABLE.find("linux-x64")
    archive, file = assets / target.asset("full"), assets / targets.SUMS
    listed = file.read_text(encoding="utf-8")
    says = target.asset("full")
    if wrong == "missing":
        archive.unlink()
    elif wrong == "unlisted":
        file.write_text(listed.replace(archive.name, "other"), encoding="utf-8")
        says = "but not in SHA256SUMS"
    elif wrong == "twice":
        file.write_text(listed * 2, encoding="utf-8")
        says = "a second time"
    elif wrong == "changed":
        write_archive(assets, target, contents(target) | {target.exe: b"tampered with"})
        says = "SHA-256"
    else:
        file.unlink()
        says = targets.SUMS
    out = tmp_path / "npm"
    with pytest.raises(ReleaseError, match=says):
        npm.make(TABLE, [target], assets, out)
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["release"]


@pytest.mark.parametrize("name", ["linux-x64", "windows-x64"])
@pytest.mark.parametrize("missing", ["the executable", "LICENSE", "THIRD-PARTY-LICENSES.txt"])
def test_an_archive_without_one_of_its_files_is_refused(
    assets: Path, tmp_path: Path, name: str, missing: str
) -> None:
    target = TABLE.find(name)
    missing = target.exe if missing == "the executable" else missing
    files = {name: data for name, data in contents(target).items() if name != missing}
    write_archive(assets, target, files)
    sums.write(assets)
    with pytest.raises(ReleaseError, match=f"has no cortex-embed-{name}/{missing}"):
        npm.make(TABLE, [target], assets, tmp_path / "npm")


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "1.0.0.dev1", "1.0.0-rc.1"])
def test_a_version_that_npm_does_not_take_is_refused(tmp_path: Path, version: str) -> None:
    with pytest.raises(ReleaseError, match=r"MAJOR\.MINOR\.PATCH"):
        npm.make(TABLE, [], tmp_path, tmp_path / "npm", version)


@NODE
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [("1.0.0a2", "1.0.0-alpha.2"), ("1.0.0b1", "1.0.0-beta.1"), ("1.0.0rc1", "1.0.0-rc.1")],
)
def test_what_comes_before_a_release_is_not_the_latest(
    tmp_path: Path, ours: str, theirs: str
) -> None:
    (made,) = npm.make(TABLE, [], tmp_path, tmp_path / "npm", ours)
    assert made.name == f"cortex-embed-{theirs}.tgz"
    manifest = json.loads(members(made)["package.json"][1])
    assert manifest["version"] == theirs
    assert set(manifest["optionalDependencies"].values()) == {theirs}
    assert manifest["publishConfig"]["tag"] == "next"


def test_without_npm_it_says_so(
    assets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ReleaseError, match=r"install Node\.js"):
        npm.make(TABLE, [], assets, tmp_path / "npm")


@NODE
def test_the_command_packs_this_machines_target_and_says_so(
    assets: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(targets, "here", lambda table: table.find("macos-arm64"))
    command = ["--assets", str(assets), "--out", str(tmp_path / "npm"), "--this-target"]
    assert npm.main(command) == 0
    said = capsys.readouterr().out
    assert f"cortex-embed-macos-arm64-{__version__}.tgz" in said
    assert "no release" in said


def test_the_command_tells_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert npm.main(["--assets", str(tmp_path), "--out", str(tmp_path / "npm")]) == 1
    assert "nox -s package" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed: it is to parse")
@pytest.mark.parametrize("path", JAVASCRIPT, ids=lambda path: path.name)
def test_the_javascript_parses(path: Path) -> None:
    done = subprocess.run(
        ["node", "--check", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
