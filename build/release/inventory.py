"""What is inside a bundle: every file and module, and the component that it belongs to.

From what the spec noted while PyInstaller analysed (`.work/contents.json`), never from what is
installed: a package that was left out is no part of it. A file that belongs to nobody stops the
release.
"""

from __future__ import annotations

import json
import posixpath
import re
import sys
import sysconfig
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import compile_kernels
import fetch_vocabulary
from cortex_embed import __version__
from cortex_embed.models.artifact import hash_file, load_artifact
from cortex_embed.providers import cl100k
from release import ReleaseError, native

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements" / "release.lock"
OURS = "cortex-embed"
BOOTLOADER = "pyinstaller-bootloader"
_VOCABULARY = "cl100k_base"
_MODEL = "model"
_KERNELS = f"{compile_kernels.LIB.relative_to(ROOT / 'app').as_posix()}/"
_ZIG = "zig-compiler-rt"
_INTERPRETER = re.compile(r"(lib)?python3[\d.]*(t|d)?(\.dll|\.so|\.dylib)|Python$")
# Other words of our packages' metadata for the same.
_WORDS = {
    "MIT License": "MIT", "Apache Software License": "Apache-2.0", "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0", "Python Software Foundation License": "PSF-2.0",
}  # fmt: skip
# The catalogue writes licences as the hub does.
_SPDX = {"mit": "MIT", "apache-2.0": "Apache-2.0"}


@dataclass
class Component:
    """One part of a bundle. `licence` is an SPDX expression, or the words of its metadata.

    `files` are paths in the directory form; `modules` are Python modules in the archive inside
    the executable. `texts` maps where a licence text is from to the text.
    """

    kind: Literal["application", "library", "machine-learning-model", "data"]
    name: str
    version: str
    licence: str
    purl: str | None = None
    texts: dict[str, str] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    modules: set[str] = field(default_factory=set)
    lock: tuple[str, ...] = ()
    """SHA-256 of the distributions that the lock admits."""
    sources: dict[str, str] = field(default_factory=dict)
    """What it was made from, where that is pinned: name to SHA-256."""
    crates: tuple[dict[str, Any], ...] = ()
    """Rust crates that were linked into it, as its wheel's own SBOM says (PEP 770)."""


class Inventory:
    """The components of one frozen directory (`OUT/.work` beside `OUT/onedir`)."""

    def __init__(self, out: Path) -> None:
        """Raises ReleaseError, naming the file or module that cannot be told."""
        notes = out / ".work" / "contents.json"
        try:
            contents = json.loads(notes.read_text(encoding="utf-8"))
        except OSError:
            raise ReleaseError(
                f"{notes} is missing: {out} was not made by build/freeze.py."
            ) from None
        self._out = out
        self._model = out / ".work" / "model"
        self.components: dict[str, Component] = {}
        links = {}
        for dest, source, kind in contents["files"]:
            if kind == "SYMLINK":
                links[dest] = source
            else:
                self._component(dest, source).files.add(dest)
        for dest, target in links.items():
            owner = self._holding(_followed(dest, target, links))
            if (out / "onedir" / "_internal" / dest).is_file():  # else a directory's
                owner.files.add(dest)
        for name, source in contents["modules"]:
            self._component(name, source).modules.add(name)
        for name, source in (*contents["bootstrap"], *contents["bootloader"]):
            owner = self._component(name, source)
            # Our entry script is no module; libraries are among the files.
            if owner.name != OURS and name not in owner.files:
                owner.modules.add(name)
        self._statically_linked()
        self._linked_by_zig()

    def _holding(self, path: str) -> Component:
        """Of a file of the bundle, or of a directory in it."""
        for component in self.components.values():
            if any(file == path or file.startswith(f"{path}/") for file in component.files):
                return component
        raise ReleaseError(f"a link of the bundle leads to {path}, which is not in it.")

    def _component(self, dest: str, origin: str) -> Component:
        """The component that a file belongs to, by where it came from."""
        source = Path(origin)
        name = self._made_here(dest, source) or distributions().get(source)
        if name == "pyinstaller":  # of which only the bootloader is in a bundle
            name = BOOTLOADER
        if name is not None and name in _KNOWN:
            return self._known(name, _KNOWN[name])
        if name == _MODEL:
            return self._known(name, lambda: model(self._model))
        # What auditwheel and its like have put into a wheel is somebody else's.
        put_in = source.parent.name.endswith((".libs", ".dylibs"))
        if name is not None and not put_in:
            return self._known(name, lambda: distribution(name))
        if name is None and _is_python(source):
            return self._known("cpython", cpython)
        return self._native(native.library_of(Path(dest).name), source, name)

    def _made_here(self, dest: str, source: Path) -> str | None:
        """Of what this tree, or freezing it, has made."""
        if source.is_relative_to(self._model):
            return _MODEL
        # The standard library's beginning; and what surrounds the interpreter on macOS.
        if dest == "base_library.zip" or dest.startswith("Python.framework/"):
            return "cpython"
        if Path(dest).name.startswith(_VOCABULARY):
            return _VOCABULARY
        if source.is_relative_to(self._out / ".work"):  # else PyInstaller's own modules
            return OURS if dest.startswith(OURS) or dest.endswith(".pyz") else BOOTLOADER
        ours = source.is_relative_to(ROOT / "app") or source.is_relative_to(ROOT / "specs")
        return OURS if ours else None

    def _known(self, name: str, make: Callable[[], Component]) -> Component:
        found = self.components.get(name)
        if found is None:
            found = make()
            self.components[name] = found
        return found

    def _native(self, library: native.Library, source: Path, carrier: str | None) -> Component:
        """A library of the wheel `carrier`, or of the system's."""

        def make() -> Component:
            if carrier is not None:
                return carried(library, source, carrier)
            found = native.origin(library, source)
            return Component(
                "library", library.name, found.version, library.licence, found.purl, found.texts
            )

        return self._known(library.name, make)

    def _statically_linked(self) -> None:
        """Libraries of CPython's modules of which no file is in the bundle: they hold them."""
        python = self.components["cpython"].files
        interpreter = {f for f in python if _INTERPRETER.match(posixpath.basename(f))}
        for library in native.libraries():
            if library.name in self.components or sys.platform not in library.systems:
                continue
            holders = {f for f in python if posixpath.basename(f).split(".")[0] in library.modules}
            if set(library.modules) & set(sys.builtin_module_names):
                holders |= interpreter  # whole, whether a module of it is ever imported or not
            if holders:
                self.components[library.name] = Component(
                    "library", library.name, native.linked_version(library), library.licence,
                    texts=native.standard_text(library), files=holders,
                )  # fmt: skip

    def _linked_by_zig(self) -> None:
        """What the native kernels' linker may have added to them of its own."""
        libraries = {file for file in self.components[OURS].files if file.startswith(_KERNELS)}
        if libraries:
            self._known(_ZIG, zig_runtime).files = libraries


def _followed(dest: str, target: str, links: Mapping[str, str]) -> str:
    """Where a link leads, through links to directories: `Versions/Current/Python`."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(dest), target))
    for link, to in links.items():
        if path == link or path.startswith(f"{link}/"):
            beyond = posixpath.relpath(path, link)
            return _followed(link, posixpath.join(to, beyond), links)
    return path


def _is_python(source: Path) -> bool:
    """Of the standard library or the interpreter; not a system's library beside it."""
    places = {Path(sysconfig.get_path(key)).resolve() for key in ("stdlib", "platstdlib")}
    places.add(Path(sys.base_prefix, "DLLs").resolve())  # Windows' extension modules
    resolved = source.resolve()
    if _INTERPRETER.match(source.name):
        return True
    inside = any(resolved.is_relative_to(place) for place in places)
    third = re.match(r"lib|vcruntime", source.name.lower()) and source.suffix != ".py"
    return inside and not (third and "lib-dynload" not in source.parts)


@cache
def distributions() -> dict[Path, str]:
    """Every installed file, and the distribution that its RECORD says it is of."""
    return {
        Path(str(path.locate())): _normal(dist.name)
        for dist in metadata.distributions()
        for path in dist.files or ()
    }


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def locked() -> Mapping[str, tuple[str, tuple[str, ...]]]:
    """Distribution to version and hashes, of the lock."""
    rows: dict[str, tuple[str, tuple[str, ...]]] = {}
    for row in re.split(r"\n(?=[a-z])", LOCK.read_text(encoding="utf-8")):
        match = re.match(r"([a-z0-9._-]+)==([^\s;]+)", row)
        if match and metadata_version(match[1]) in {None, match[2]}:
            hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", row)
            rows[_normal(match[1])] = (match[2], tuple(sorted(hashes)))
    return rows


def metadata_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def distribution(name: str) -> Component:
    """A Python package of the lock. Raises ReleaseError where its version or text is missing."""
    dist = metadata.distribution(name)
    version, hashes = locked().get(name, (None, ()))
    if version != dist.version:
        raise ReleaseError(
            f"{name} {dist.version} is in the bundle, {LOCK.name} has {version}. Freeze in an "
            "environment that was made from it."
        )
    return Component(
        "library", name, dist.version, _licence_of(dist), f"pkg:pypi/{name}@{dist.version}",
        texts=_dist_texts(dist), lock=hashes, crates=_crates(dist),
    )  # fmt: skip


def _licence_of(dist: metadata.Distribution) -> str:
    """SPDX where the package states it (PEP 639), else its own words. Raises ReleaseError."""
    facts = dist.metadata
    stated = next(
        (v for key in ("License-Expression", "License") for v in facts.get_all(key, [])), None
    )
    classifiers = [
        c.rpartition(" :: ")[2]
        for c in facts.get_all("Classifier", [])
        if c.startswith("License ::")
    ]
    words = stated if stated and "\n" not in stated else ", ".join(classifiers)
    if not words:
        raise ReleaseError(f"{dist.name} {dist.version} states no licence in its metadata.")
    return _WORDS.get(words, words)


def _dist_texts(dist: metadata.Distribution) -> dict[str, str]:
    """Licences, notices and third parties' notices of a wheel, in its dist-info or beside it.

    Where it has none and is under Apache-2.0, which is the same for everybody, the standard text.
    """
    wanted = re.compile(r"(licen[sc]e|copying|notice|thirdpartynotices)", flags=re.IGNORECASE)
    texts = {}
    for path in dist.files or ():
        of_package = ".dist-info" in path.parts[0] or len(path.parts) == 2
        if of_package and wanted.match(re.sub(r"^.*/", "", str(path))) and path.suffix != ".py":
            texts[str(path)] = Path(str(path.locate())).read_text(
                encoding="utf-8", errors="replace"
            )
    if not texts and _licence_of(dist) == "Apache-2.0":
        texts["the standard text: the wheel has none"] = native.apache_terms()
    return texts


def _crates(dist: metadata.Distribution) -> tuple[dict[str, Any], ...]:
    """Components of the wheel's own CycloneDX SBOM."""
    found = []
    for path in dist.files or ():
        if "sboms" in path.parts and path.suffix == ".json":
            document = json.loads(Path(str(path.locate())).read_text(encoding="utf-8"))
            found += [c for c in document.get("components", []) if "cargo" in c.get("purl", "")]
    return tuple(found)


def own() -> Component:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    return Component("application", OURS, __version__, "MIT", texts={"LICENSE": text})


def cpython() -> Component:
    version = sys.version.split()[0]
    texts = {"LICENSE of CPython": native.cpython_licence()}
    return Component(
        "library", "cpython", version, "PSF-2.0", f"pkg:generic/python@{version}", texts
    )


def bootloader() -> Component:
    """PyInstaller's program that starts Python: GPL, with an exception for what it starts."""
    found = distribution("pyinstaller")
    found.name, found.licence = BOOTLOADER, "GPL-2.0-or-later WITH Bootloader-exception"
    return found


def zig_runtime() -> Component:
    """zig's compiler-rt; for Windows the beginning of a library too, which is mingw-w64's."""
    found = distribution(compile_kernels.ZIG)
    parts = {"ziglang/LICENSE": "MIT"}
    if sys.platform == "win32":
        parts["ziglang/lib/libc/mingw/COPYING"] = "ZPL-2.1"
    found.name, found.licence = _ZIG, " AND ".join(parts.values())
    found.texts = {file: native.dist_text(compile_kernels.ZIG, file) for file in parts}
    return found


def carried(library: native.Library, source: Path, owner: str) -> Component:
    """A library of somebody else's inside a wheel: the wheel's own texts speak of it."""
    dist = metadata.distribution(owner)
    match = re.search(r"\.so\.([\d.]+)$", source.name)
    version = match[1] if match else f"of {owner} {dist.version}"
    if library.name == "openblas":
        import numpy.__config__ as config

        version = config.CONFIG["Build Dependencies"]["blas"]["version"]
    named = library.name.removeprefix("lib")
    texts = {n: t for n, t in _dist_texts(dist).items() if named in t.lower()}
    texts = texts or native.standard_text(library)
    return Component("library", library.name, version, library.licence, texts=texts)


def model(directory: Path) -> Component:
    """The embedded model: by repository and revision, with the hashes of what it was made from."""
    artifact = load_artifact(directory)
    spec = artifact.spec
    return Component(
        "machine-learning-model", spec.repo, spec.revision, _spdx(spec.licence),
        f"pkg:huggingface/{spec.repo}@{spec.revision}", model_text(spec.repo, spec.licence),
        sources=dict(artifact.sources),
    )  # fmt: skip


def model_text(repo: str, licence: str) -> dict[str, str]:
    """The terms that a model card names by identifier: the standard text, and whose it is."""
    credit = (
        f"{repo}, by its authors (https://huggingface.co/{repo}), published under {licence}.\n\n"
    )
    if _spdx(licence) == "MIT":
        return {"the MIT terms": credit + mit_terms()}
    return {"the Apache-2.0 terms": credit + native.apache_terms()}


def mit_terms() -> str:
    """The standard text, which our own licence is; without our line of copyright."""
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    return text[text.index("Permission is hereby granted") :]


def vocabulary() -> Component:
    """OpenAI's tokens, under tiktoken's licence."""
    licence = Path(cl100k.__file__).with_name("LICENSE-tiktoken.txt").read_text(encoding="utf-8")
    pinned = fetch_vocabulary.SOURCE
    return Component(
        "data", _VOCABULARY, pinned.sha256[:12], "MIT", texts={"tiktoken": licence},
        sources={"cl100k_base.tiktoken": pinned.sha256},
    )  # fmt: skip


def _spdx(licence: str) -> str:
    """Raises ReleaseError for one whose text we do not carry."""
    if licence not in _SPDX:
        raise ReleaseError(f"a model under {licence!r}: only {', '.join(_SPDX)} texts are at hand.")
    return _SPDX[licence]


_KNOWN: dict[str, Callable[[], Component]] = {
    OURS: own,
    "cpython": cpython,
    BOOTLOADER: bootloader,
    _VOCABULARY: vocabulary,
}


def hashes(onedir: Path) -> dict[str, str]:
    """SHA-256 of every file in a directory form, by its path below `_internal`, or its own."""
    return {
        path.relative_to(onedir).as_posix().removeprefix("_internal/"): hash_file(path)
        for path in sorted(onedir.rglob("*"))
        if path.is_file()
    }
