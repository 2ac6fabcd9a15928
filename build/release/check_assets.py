"""What `release.check` holds a directory of release assets to: sums, SBOMs, archives, executables.

Every archive is opened and what is inside is compared, for all targets; only the target that
this runs on is also started. It must never trust a name.
"""

from __future__ import annotations

import json
import posixpath
import subprocess
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import targets
from cortex_embed.errors import ModelFileError
from cortex_embed.onefile import blob, pkg
from cortex_embed.onefile.start import MODEL
from release import archive, licences, npm, package, sbom, sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from release.archive import Reader
    from targets import Form, Table, Target

_MANIFEST = "cortex_embed/embedded/manifest.json"
_INTERNAL = "_internal/"
_LINKS = 8
"""Links over links that are followed, as macOS' frameworks have them."""
_TEXTS = ("LICENSE", "README.md", licences.FILE)
# Of a file that is no archive, or a cut one.
_BROKEN = (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, KeyError, ValueError)


@dataclass(frozen=True)
class Assets:
    """A directory, and what it must hold."""

    directory: Path
    root: Path
    table: Table
    chosen: tuple[Target, ...]
    """The targets whose assets are there."""
    version: str
    rehearsal: bool


def presence(assets: Assets) -> Iterator[str]:
    for target in assets.chosen:
        for name in target.assets:
            if not (assets.directory / name).is_file():
                yield f"{name} of {target.name} is not in {assets.directory}."


def checksums(assets: Assets) -> Iterator[str]:
    if assets.directory.is_dir():
        yield from sums.disagreements(assets.directory)


def rehearsal(assets: Assets) -> Iterator[str]:
    """Nobody takes for a release what was made to try one."""
    if not assets.rehearsal and (assets.directory / package.REHEARSAL).exists():
        yield f"{assets.directory / package.REHEARSAL} says that this is no release."


def bills(assets: Assets) -> Iterator[str]:
    """Each SBOM is valid, of this version and target, and names the table's model."""
    for target in assets.chosen:
        path = assets.directory / target.sbom
        if not path.is_file():
            continue  # `presence` says so
        text = path.read_text(encoding="utf-8")
        wrong = sbom.validate(text)
        if wrong is not None:
            yield f"{target.sbom} is not CycloneDX 1.6: {wrong}"
            continue
        for sentence in _bill(json.loads(text), target, assets):
            yield f"{target.sbom} {sentence}"


def _bill(bill: dict[str, Any], target: Target, assets: Assets) -> Iterator[str]:
    about = bill["metadata"]
    said = {p["name"]: p["value"] for p in about.get("properties", ())}
    version = about.get("component", {}).get("version")
    if version != assets.version:
        yield f"is of version {version}, __version__ is {assets.version}."
    if said.get(sbom.TARGET) != target.name:
        yield f"is of {said.get(sbom.TARGET)}, not of {target.name}."
    if sbom.REHEARSAL in said and not assets.rehearsal:
        yield "says that it is a rehearsal's."
    models = [c["name"] for c in bill["components"] if c["type"] == "machine-learning-model"]
    wanted = package.repository_of(assets.table.release.model)
    if models != [wanted] and not (assets.rehearsal and len(models) == 1):
        yield f"lists the models {models}, {targets.TABLE.name} wants {wanted}."


def archives(assets: Assets) -> Iterator[str]:
    """Top directory, contents and modes; what the executable carries; and its version, here."""
    for target in assets.chosen:
        for form in targets.FORMS:
            name = target.asset(form)
            if not (assets.directory / name).is_file():
                continue  # `presence` says so
            try:
                with archive.reading(assets.directory / name) as reader:
                    for sentence in _archive(reader, target, form, assets):
                        yield f"{name} {sentence}"
            except _BROKEN as why:
                yield f"{name} cannot be read: {why}."


def _archive(reader: Reader, target: Target, form: Form, assets: Assets) -> Iterator[str]:
    top = archive.stem(target.asset(form))
    members = {member.name.rstrip("/"): member for member in reader.members()}
    outside = [name for name in members if name != top and not name.startswith(f"{top}/")]
    if outside:
        yield f"has {outside[0]!r} outside of its top directory {top}/."
    files = {n.removeprefix(f"{top}/"): m for n, m in members.items() if not m.is_directory}
    yield from _names(set(files), target, form)
    for member in files.values():
        if member.link is not None and _resolved(member, members) is None:
            yield f"links {member.name} to {member.link}, which is not in it."
    for name in sorted(files.keys() & {"LICENSE", "README.md"}):
        if _bytes(reader, f"{top}/{name}") != (assets.root / name).read_bytes():
            yield f"has another {name} than this tree."
    if licences.FILE in files and not _bytes(reader, f"{top}/{licences.FILE}").strip():
        yield f"has an empty {licences.FILE}."
    if target.exe in files:
        if files[target.exe].mode != 0o755:
            yield f"has {target.exe} with mode {files[target.exe].mode:o}, not 755."
        yield from _executable(reader, top, target, form, assets)
        if form == "onedir":
            yield from _listed(reader, top, target, assets)


def _names(files: set[str], target: Target, form: Form) -> Iterator[str]:
    """The executable, the texts, and in the directory form what lies beside them."""
    wanted = {target.exe, *_TEXTS}
    for name in sorted(wanted - files):
        yield f"lacks {name}."
    inside = {name for name in files if name.startswith(_INTERNAL)}
    for name in sorted(files - wanted - inside):
        yield f"holds {name!r}, which no archive has."
    if bool(inside) != (form == "onedir"):
        yield f"has {'files' if inside else 'nothing'} in {_INTERNAL}, but is the {form} form."


def _resolved(member: archive.Member, members: dict[str, archive.Member]) -> str | None:
    """Where a symbolic link of an archive leads in it; None where that is outside or nowhere."""
    path = PurePosixPath(member.name).parent / (member.link or "")
    for _ in range(_LINKS):
        path = PurePosixPath(posixpath.normpath(path))
        # The first part of the path that is a link itself, if there is one.
        for part in (*reversed(path.parents), path):
            found = members.get(str(part))
            if found is not None and found.link is not None:
                path = part.parent / found.link / path.relative_to(part)
                break
        else:
            return str(path) if str(path) in members else None
    return None


def _bytes(reader: Reader, name: str) -> bytes:
    with reader.open(name) as file:
        return file.read()


def _executable(
    reader: Reader, top: str, target: Target, form: Form, assets: Assets
) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="release-check-") as scratch:
        exe = Path(scratch) / top / target.exe
        reader.unpack(Path(scratch))
        found = _model(exe, form)
        table = assets.table.release.model
        if form == "slim" and found is not None:
            yield f"carries the model {found}; the slim form carries none."
        if form != "slim" and found != table and not (assets.rehearsal and found is not None):
            yield f"carries the model {found}, {targets.TABLE.name} wants {table}."
        if target.name == _here(assets.table):
            yield from _version(exe, assets.version)


def _here(table: Table) -> str | None:
    """This machine's target; None where a release has none for it."""
    try:
        return targets.here(table).name
    except ValueError:
        return None


def _version(exe: Path, version: str) -> Iterator[str]:
    exe.chmod(0o755)
    try:
        done = subprocess.run(
            [exe, "--version"], capture_output=True, text=True, check=False, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired) as why:
        yield f"has an executable that does not run: {why}."
        return
    said = done.stdout.strip()
    if said != f"cortex-embed {version}":
        yield (
            f"has an executable that says {said!r} (exit code {done.returncode}), __version__ is "
            f"{version}."
        )


def _model(exe: Path, form: Form) -> str | None:
    """The model inside an executable, or beside it; None without. Nothing is run."""
    if form == "onedir":
        beside = exe.parent / _INTERNAL / _MANIFEST
        return _id(beside.read_bytes()) if beside.is_file() else None
    with exe.open("rb") as file:
        try:
            place = pkg.read(file).blobs.get(MODEL)
            if place is not None:
                index = blob.read_index(file, *place)
                return _id(blob.read(file, index.files["manifest.json"]))
        except ModelFileError as why:
            return f"of a damaged executable ({why.message})"
    from PyInstaller.archive.readers import CArchiveReader

    content = CArchiveReader(str(exe))
    names = {name.replace("\\", "/"): name for name in content.toc}
    return _id(content.extract(names[_MANIFEST])) if _MANIFEST in names else None


def _id(manifest: bytes) -> str:
    return str(json.loads(manifest)["id"])


def _listed(reader: Reader, top: str, target: Target, assets: Assets) -> Iterator[str]:
    """The SBOM's files are the directory form's, by name and SHA-256."""
    path = assets.directory / target.sbom
    try:
        bill = json.loads(path.read_text(encoding="utf-8"))
        parts = [bill["metadata"]["component"], *bill["components"]]
        stated = {
            file["name"]: file["hashes"][0]["content"]
            for part in parts
            for file in part.get("components", ())
            if file["type"] == "file"
        }
    except (OSError, ValueError, KeyError):
        return  # `presence` and `bills` say so
    launcher = "cortex-embed-onedir" + Path(target.exe).suffix
    found = {}
    members = {member.name.rstrip("/"): member for member in reader.members()}
    for member in members.values():
        name = member.name.removeprefix(f"{top}/")
        leads = _resolved(member, members) if member.link is not None else member.name.rstrip("/")
        if leads is not None and not members[leads].is_directory and name not in _TEXTS:
            digest = sha256(_bytes(reader, member.name)).hexdigest()
            found[launcher if name == target.exe else name.removeprefix(_INTERNAL)] = digest
    for name in sorted(stated.keys() ^ found.keys()):
        where = "the SBOM lists it" if name in stated else "the SBOM does not list it"
        yield f"and {target.sbom} differ over {name}: {where}."
    for name in sorted(n for n in stated.keys() & found.keys() if stated[n] != found[n]):
        yield f"has {name} with SHA-256 {found[name]}, {target.sbom} says {stated[name]}."


def node_packages(assets: Assets) -> Iterator[str]:
    """The npm wrapper, where it is among the assets, asks for every target's package."""
    for path in sorted(assets.directory.glob("cortex-embed-[0-9]*.tgz")):
        try:
            with tarfile.open(path) as tar:
                member = tar.extractfile("package/package.json")
                facts = json.loads(member.read() if member else b"{}")
        except _BROKEN as why:
            yield f"{path.name} cannot be read: {why}."
            continue
        if facts.get("version") != npm.npm_version(assets.version):
            version = facts.get("version")
            yield f"{path.name} is of version {version}, __version__ is {assets.version}."
        asked = {name.rpartition("/")[2] for name in facts.get("optionalDependencies", ())}
        names = {target.name for target in assets.table.targets}
        for name in sorted(names - asked):
            yield f"{path.name} does not ask for {name}, which targets.toml has."
        for name in sorted(asked - names):
            yield f"{path.name} asks for {name}, which targets.toml has not."


CHECKS: tuple[Callable[[Assets], Iterator[str]], ...] = (
    presence, checksums, rehearsal, bills, archives, node_packages,
)  # fmt: skip
