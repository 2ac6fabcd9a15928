"""Manifests and the scripts' tables: from build/targets.toml and the sums, and nothing else."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

import targets
from cortex_embed import __version__
from release import manifests

TABLE = targets.load()
DIGESTS = {
    name: f"{number:064x}"
    for number, name in enumerate((n for t in TABLE.targets for n in t.assets), 1)
}
FULL = {target.name: target.asset("full") for target in TABLE.targets}
TAGGED = "https://github.com/cortex-embed/cortex-embed/releases/download/v1.2.3"


def sums_file(directory: Path, digests: dict[str, str]) -> None:
    directory.mkdir(exist_ok=True)
    lines = (f"{digest}  {name}\n" for name, digest in sorted(digests.items()))
    (directory / targets.SUMS).write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("name", manifests.SCRIPTS)
def test_the_scripts_hold_the_table(name: str) -> None:
    text = (manifests.TEMPLATES / name).read_text(encoding="utf-8")
    assert manifests.script(name, text, TABLE) == text, "run: python -m release.manifests --scripts"


@pytest.mark.parametrize("name", manifests.SCRIPTS)
def test_a_change_of_the_table_is_one_of_the_scripts(name: str) -> None:
    text = (manifests.TEMPLATES / name).read_text(encoding="utf-8")
    moved = msgspec.structs.replace(
        TABLE,
        targets=[msgspec.structs.replace(t, minimum="glibc 9.87") for t in TABLE.targets],
        release=msgspec.structs.replace(TABLE.release, repository="o/r"),
    )
    changed = manifests.script(name, text, moved)
    assert "9.87" in changed
    assert "'o/r'" in changed
    assert manifests.script(name, changed, TABLE) == text
    with pytest.raises(ValueError, match="must have one block"):
        manifests.script(name, text.replace(manifests.END, ""), TABLE)


def test_every_asset_is_in_one_of_the_scripts() -> None:
    texts = [(manifests.TEMPLATES / name).read_text(encoding="utf-8") for name in manifests.SCRIPTS]
    for target in TABLE.targets:
        for form in targets.FORMS:
            hits = [bool(re.search(rf"[ ']{re.escape(target.asset(form))}\b", t)) for t in texts]
            assert hits.count(True) == 1, target.asset(form)


def test_install_ps1_asks_for_what_is_in_the_table() -> None:
    # It was never run here: there is no PowerShell for this machine to run it with.
    text = (manifests.TEMPLATES / "install.ps1").read_text(encoding="utf-8")
    named = set(re.findall(r"'(windows-\w+)'", text))
    windows = {target.name for target in TABLE.targets if target.os == "windows"}
    assert windows <= named
    # A processor that it maps to a target that is not there is handled by name.
    assert named - windows <= {"windows-arm64"}
    assert "Get-FileHash -LiteralPath $File -Algorithm SHA256" in text
    assert not re.search(r"^\s*exit\b", text, flags=re.MULTILINE), "it would close the window"
    assert text.isascii(), "Windows PowerShell 5.1 reads a file without a mark as ANSI"


@pytest.fixture
def formula() -> str:
    return manifests.formula(TABLE, "1.2.3", DIGESTS)


def test_the_formula_has_each_target_with_its_own_hash(formula: str) -> None:
    found = re.findall(r'url "(\S+)"\n\s+sha256 "(\w+)"', formula)
    wanted = {
        (f"{TAGGED}/{FULL[target.name]}", DIGESTS[FULL[target.name]])
        for target in TABLE.targets
        if target.os != "windows"
    }
    assert len(found) == len(wanted)
    assert set(found) == wanted


def test_the_formula_puts_them_under_their_systems(formula: str) -> None:
    seen: dict[str, str] = {}
    system = arch = ""
    for line in formula.splitlines():
        if match := re.match(r"  on_(macos|linux) do", line):
            system = match[1]
        elif match := re.match(r"    on_(arm|intel) do", line):
            arch = {"arm": "arm64", "intel": "x64"}[match[1]]
        elif match := re.match(r"      (?:url \".*/|depends_on macos: :)([\w.-]+)", line):
            seen[f"{system}-{arch}" + (" minimum" if "depends_on" in line else "")] = match[1]
    assert seen == {
        "macos-arm64": FULL["macos-arm64"],
        "macos-arm64 minimum": "sonoma",
        "macos-x64": FULL["macos-x64"],
        "macos-x64 minimum": "ventura",
        "linux-x64": FULL["linux-x64"],
        "linux-arm64": FULL["linux-arm64"],
    }
    for target in TABLE.targets:
        assert (f"{target.name}: {target.minimum}\n" in formula) == (target.os != "windows")


def test_the_formula_keeps_homebrews_rules(formula: str) -> None:
    (description,) = re.findall(r'desc "(.*)"', formula)
    assert len(description) <= 80
    assert not description.endswith(".")
    assert not description.lower().startswith(("a ", "an ", "the ", "cortex"))
    assert 'version "1.2.3"' in formula
    assert "#{version}" in formula


def test_ruby_reads_the_formula(formula: str, tmp_path: Path) -> None:
    ruby = shutil.which("ruby")
    if ruby is None:
        pytest.skip("ruby is not on this machine: the formula's syntax was NOT checked")
    path = tmp_path / manifests.FORMULA
    path.write_text(formula, encoding="utf-8")
    done = subprocess.run([ruby, "-c", path], capture_output=True, text=True, check=False)
    assert done.stdout == "Syntax OK\n", done.stderr


def test_scoop() -> None:
    manifest = json.loads(manifests.scoop(TABLE, "1.2.3", DIGESTS))
    # https://github.com/ScoopInstaller/Scoop/blob/master/schema.json: no other keys than its own.
    assert manifest.keys() == {
        "version", "description", "homepage", "license", "architecture", "bin", "checkver",
        "autoupdate",
    }  # fmt: skip
    name = FULL["windows-x64"]
    assert manifest["architecture"] == {
        "64bit": {
            "url": f"{TAGGED}/{name}",
            "hash": DIGESTS[name],
            "extract_dir": "cortex-embed-windows-x64",
        }
    }
    assert manifest["bin"] == TABLE.find("windows-x64").exe
    url = manifest["autoupdate"]["architecture"]["64bit"]["url"]
    assert url.replace("$version", "1.2.3") == f"{TAGGED}/{name}"
    assert manifest["autoupdate"]["hash"] == {"url": f"$baseurl/{targets.SUMS}"}
    assert (manifest["version"], manifest["license"]) == ("1.2.3", "MIT")


# What winget's JSON schemas (microsoft/winget-cli, schemas/JSON/manifests/v1.10.0) want of the
# fields that we use: a pattern each, and which must be there.
WINGET: dict[str, dict[str, str]] = {
    "version": {
        "PackageIdentifier": r"[^.\s\\/:*?\"<>|]{1,32}(\.[^.\s\\/:*?\"<>|]{1,32}){1,7}",
        "PackageVersion": r'[^\\/:*?"<>|]{1,128}',
        "DefaultLocale": "en-US",
        "ManifestType": "version",
        "ManifestVersion": r"\d+\.\d+\.\d+",
    },
    "installer": {
        "PackageIdentifier": r"[^.\s\\/:*?\"<>|]{1,32}(\.[^.\s\\/:*?\"<>|]{1,32}){1,7}",
        "PackageVersion": r'[^\\/:*?"<>|]{1,128}',
        "InstallerType": "zip",
        "NestedInstallerType": "portable",
        "ManifestType": "installer",
        "ManifestVersion": r"\d+\.\d+\.\d+",
    },
    "defaultLocale": {
        "PackageIdentifier": r"[^.\s\\/:*?\"<>|]{1,32}(\.[^.\s\\/:*?\"<>|]{1,32}){1,7}",
        "PackageVersion": r'[^\\/:*?"<>|]{1,128}',
        "PackageLocale": "en-US",
        "Publisher": ".{2,256}",
        "PublisherUrl": r"https://.+",
        "PublisherSupportUrl": r"https://.+",
        "PackageName": ".{2,256}",
        "PackageUrl": r"https://.+",
        "License": ".{3,512}",
        "LicenseUrl": r"https://.+/v1\.2\.3/LICENSE",
        "ShortDescription": ".{3,256}",
        "ReleaseNotesUrl": r"https://.+/tag/v1\.2\.3",
        "Moniker": ".{1,40}",
        "ManifestType": "defaultLocale",
        "ManifestVersion": r"\d+\.\d+\.\d+",
    },
}


def winget() -> dict[str, dict[str, Any]]:
    files = manifests.winget(TABLE, "1.2.3", DIGESTS)
    assert set(files) == {
        "CortexEmbed.CortexEmbed.yaml",
        "CortexEmbed.CortexEmbed.installer.yaml",
        "CortexEmbed.CortexEmbed.locale.en-US.yaml",
    }
    documents = [yaml.safe_load(text) for text in files.values()]
    return {document["ManifestType"]: document for document in documents}


@pytest.mark.parametrize("kind", WINGET)
def test_winget_has_its_fields_as_strings(kind: str) -> None:
    document = winget()[kind]
    lists = {"Installers", "Commands", "Tags"}
    assert set(document) - lists == set(WINGET[kind])
    for name, pattern in WINGET[kind].items():
        assert isinstance(document[name], str), name  # 1.10 would be a number
        assert re.fullmatch(pattern, document[name]), name
    assert document["PackageVersion"] == "1.2.3"


def test_winget_installs_the_program_inside_the_zip() -> None:
    document = winget()["installer"]
    name = FULL["windows-x64"]
    assert document["Installers"] == [
        {
            "Architecture": "x64",
            "MinimumOSVersion": "10.0.0.0",
            "InstallerUrl": f"{TAGGED}/{name}",
            "InstallerSha256": DIGESTS[name].upper(),
            "NestedInstallerFiles": [
                {
                    "RelativeFilePath": r"cortex-embed-windows-x64\cortex-embed.exe",
                    "PortableCommandAlias": "cortex-embed",
                }
            ],
        }
    ]
    tags = winget()["defaultLocale"]["Tags"]
    assert 0 < len(set(tags)) == len(tags) <= 16


@pytest.mark.parametrize("target", [target.name for target in TABLE.targets])
def test_a_target_without_a_line_is_an_error(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sums_file(tmp_path, {n: d for n, d in DIGESTS.items() if n != FULL[target]})
    out = tmp_path / "out"
    assert manifests.main(["--release", str(tmp_path), "--out", str(out)]) == 1
    assert f"no line for {FULL[target]}" in capsys.readouterr().err
    assert not out.exists()


def test_without_sums_nothing_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert manifests.main(["--release", str(tmp_path)]) == 1
    assert f"{targets.SUMS} is missing" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_all_files_are_made(tmp_path: Path) -> None:
    sums_file(tmp_path, DIGESTS)
    assert manifests.main(["--release", str(tmp_path)]) == 0
    made = {path.name for path in tmp_path.iterdir()} - {targets.SUMS}
    assert made == set(manifests.names())
    for name in made - set(manifests.SCRIPTS):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert __version__ in text
        assert not re.search(r"\$(?!version|baseurl|schema=)", text), name
    assert (tmp_path / "install.sh").read_bytes() == (
        manifests.TEMPLATES / "install.sh"
    ).read_bytes()


def test_scripts_are_written_only_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in manifests.SCRIPTS:
        shutil.copy2(manifests.TEMPLATES / name, tmp_path)
    script = tmp_path / "install.sh"
    right = script.read_text(encoding="utf-8")
    script.write_text(right.replace("glibc 2.28", "glibc 2.99"), encoding="utf-8")
    monkeypatch.setattr(manifests, "TEMPLATES", tmp_path)
    assert manifests.main(["--scripts"]) == 0
    assert manifests.main(["--scripts"]) == 0
    assert capsys.readouterr().out == "Changed: install.sh\nChanged: nothing\n"
    assert script.read_text(encoding="utf-8") == right


def test_a_macos_without_a_name_is_an_error() -> None:
    rows = [msgspec.structs.replace(t, minimum="macOS 12.0") for t in TABLE.targets]
    table = msgspec.structs.replace(TABLE, targets=rows)
    with pytest.raises(ValueError, match="Homebrew's name of macOS 12"):
        manifests.formula(table, "1.2.3", DIGESTS)
