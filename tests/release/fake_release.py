"""A release in small: a tree, and the assets of two targets that agree with it, to be mutated.

The executables are real PyInstaller archives (behind a shell script that says its version) that
hold a manifest as real ones do: in a blob on Linux, as a plain entry on Windows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import structs
from PyInstaller.archive.writers import CArchiveWriter

import targets
from cortex_embed.onefile import blob
from release import archive, check, licences, sbom, sums
from release.check_assets import Assets
from release.inventory import Component, hashes

if TYPE_CHECKING:
    from targets import Form, Table, Target

VERSION = "1.2.3"
MODEL = "bge-small-en-v1.5"
REPO = "BAAI/bge-small-en-v1.5"
EPOCH = 1_700_000_000
OTHERS = ("linux-x64", "windows-x64")
_LIBRARY = "libz.so.1"
_CHANGELOG = """# Changelog

## [Unreleased]

## [1.2.3] - 2026-01-02

### Added

- What is new.

## [1.2.2] - 2026-01-01

- What was new.

[1.2.3]: https://github.com/cortex-embed/cortex-embed/compare/v1.2.2...v1.2.3
"""


def small_table() -> Table:
    """Two targets, one of each archive format, this machine's among them."""
    table = targets.load()
    here = targets.here(table)
    names = {"windows-x64", here.name if here.os != "windows" else "linux-x64"}
    return structs.replace(table, targets=[t for t in table.targets if t.name in names])


@dataclass(frozen=True)
class Release:
    """The good copy. `say()` is what release-check has against it."""

    root: Path
    directory: Path
    table: Table

    def tree(self) -> check.Tree:
        return check.Tree(self.root, f"v{VERSION}", self.table, None)

    def assets(self) -> Assets:
        chosen = tuple(self.table.targets)
        return Assets(self.directory, self.root, self.table, chosen, VERSION, rehearsal=False)

    def say(self, *, tag: str = f"v{VERSION}", repository: str | None = None) -> str:
        tree = replace(self.tree(), tag=tag, repository=repository)
        return "\n".join(check.disagreements(tree, self.assets()))

    def edit(self, name: str, old: str, new: str) -> None:
        """In a file of the tree. Fails where `old` is not in it."""
        path = self.root / name
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def target(self, system: str) -> Target:
        """The one of two, `zip` or `tar`."""
        return next(t for t in self.table.targets if t.archive.startswith(system))


def make(base: Path) -> Release:
    release = Release(base / "tree", base / "assets", small_table())
    _tree(release.root, release.table)
    release.directory.mkdir()
    for target in release.table.targets:
        pack(release, target)
    sums.write(release.directory)
    return release


def _tree(root: Path, table: Table) -> None:
    for directory in ("app/cortex_embed", "build/install"):
        (root / directory).mkdir(parents=True)
    readme = f"# x\n\n<!-- downloads -->\n{table.downloads()}\n<!-- /downloads -->\n"
    names = {
        system: " ".join(t.asset(f) for t in table.targets if t.os in of for f in targets.FORMS)
        for system, of in (("sh", {"linux", "macos"}), ("ps1", {"windows"}))
    }
    for name, text in {
        "README.md": readme,
        "LICENSE": "the terms\n",
        "CHANGELOG.md": _CHANGELOG,
        "app/cortex_embed/__init__.py": f'__version__ = "{VERSION}"\n',
        "build/install/install.sh": names["sh"],
        "build/install/install.ps1": names["ps1"],
    }.items():
        (root / name).write_text(text, encoding="utf-8")


def pack(
    release: Release, target: Target, *, version: str = VERSION, model: str | None = MODEL,
    repo: str = REPO, slim_model: str | None = None, named: str | None = None,
) -> None:  # fmt: skip
    """Write the target's archives and SBOM; the words are those that may be wrong."""
    scratch = release.root.parent / f"scratch-{target.name}"
    onedir = scratch / "onedir"
    internal = onedir / "_internal"
    (internal / "cortex_embed" / "embedded").mkdir(parents=True, exist_ok=True)
    launcher = "cortex-embed-onedir" + Path(target.exe).suffix
    executable(onedir / launcher, target, version, None)
    (internal / _LIBRARY).write_bytes(b"a library")
    if model is not None:
        manifest = internal / "cortex_embed" / "embedded" / "manifest.json"
        manifest.write_text(json.dumps({"id": model}), encoding="utf-8")
    for form, carried in (("full", model), ("slim", slim_model)):
        executable(scratch / form / target.exe, target, version, carried)
    (scratch / licences.FILE).write_text("zlib: its terms\n", encoding="utf-8")
    bill = sbom.document(
        components(hashes(onedir), repo), onedir, target=named or target.name, version=version,
        rehearsal=False,
    )  # fmt: skip
    (release.directory / target.sbom).write_text(bill, encoding="utf-8")
    for form in targets.FORMS:
        write(release, target, form, files_of(release, target, form))


def files_of(release: Release, target: Target, form: Form) -> dict[str, Path]:
    """What `pack` has put into an archive, to be mutated."""
    scratch = release.root.parent / f"scratch-{target.name}"
    files = {target.exe: scratch / form / target.exe}
    if form == "onedir":
        files = archive.tree(scratch / "onedir")
        files[target.exe] = files.pop("cortex-embed-onedir" + Path(target.exe).suffix)
    texts = {"LICENSE": release.root / "LICENSE", "README.md": release.root / "README.md"}
    return files | texts | {licences.FILE: scratch / licences.FILE}


def write(release: Release, target: Target, form: Form, files: dict[str, Path]) -> None:
    out = release.directory / target.asset(form)
    archive.write(out, files, executable=target.exe, epoch=EPOCH)


def components(found: dict[str, str], repo: str) -> dict[str, Component]:
    """An owner for each file of the directory form."""
    ours = Component("application", "cortex-embed", VERSION, "MIT")
    library = Component("library", "zlib", "1.3", "Zlib", files={_LIBRARY})
    model = Component("machine-learning-model", repo, "1234abcd", "MIT")
    for name in found.keys() - library.files:
        (model if "embedded" in name else ours).files.add(name)
    return {"cortex-embed": ours, "zlib": library, "model": model}


def executable(path: Path, target: Target, version: str, model: str | None) -> None:
    """A script that says `version`, and a PyInstaller archive behind it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.with_name("plain")
    plain.write_bytes(json.dumps({"id": model}).encode())
    entries = [("plain", str(plain), False, "x")]
    if model is not None and target.os == "linux":
        stored = path.with_name("model.blob")
        with stored.open("wb") as file:
            blob.write(file, {"manifest.json": plain}, {})
        entries.append(("model.blob", str(stored), False, "B"))
    elif model is not None:
        entries.append(("cortex_embed/embedded/manifest.json", str(plain), False, "x"))
    package = path.with_name("pkg")
    CArchiveWriter(str(package), entries, pylib_name="libpython3.so")
    script = f"#!/bin/sh\necho 'cortex-embed {version}'\nexit 0\n".encode()
    path.write_bytes(script + package.read_bytes())
    path.chmod(0o755)
    for name in ("plain", "pkg", "model.blob"):
        path.with_name(name).unlink(missing_ok=True)
