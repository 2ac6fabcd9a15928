"""Native libraries of a bundle: which project they are of, which version, and its licence's text.

Asked of who put the file there: Debian's or an RPM system's packages, the wheel, or the Python
tree. It must never guess a version or leave a text out: what is not known stops the release.
"""

from __future__ import annotations

import decimal
import os
import platform
import pyexpat
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import zlib
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from release import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = Path(__file__).with_name("libraries.toml")
TEXTS = Path(__file__).with_name("texts")
_DOC = Path("/usr/share/doc")
_COMMON = Path("/usr/share/common-licenses")
# What Debian's copyright files name instead of holding it.
_COMMON_NAMES = {"Apache-2.0": "Apache-2.0", "GPL-3.0-or-later": "GPL-3"}


class Library(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of libraries.toml."""

    name: str
    prefixes: tuple[str, ...]
    licence: str
    modules: tuple[str, ...] = ()
    """CPython's extension modules that it may be linked into."""
    systems: tuple[str, ...] = ("linux", "darwin", "win32")
    """`sys.platform` where they need it."""


@dataclass(frozen=True)
class Origin:
    """Who put a library on this machine. `purl` is None where nothing names it."""

    version: str
    purl: str | None
    texts: dict[str, str]
    """Where a text is from, to the text."""


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    library: tuple[Library, ...]


@cache
def libraries() -> tuple[Library, ...]:
    return msgspec.toml.decode(TABLE.read_bytes(), type=_Table).library


def library_of(file: str) -> Library:
    """The project of a library by its file name. Raises ReleaseError for one that is unknown."""
    for library in libraries():
        if file.lower().startswith(library.prefixes):
            return library
    raise ReleaseError(
        f"{file} is in the bundle, and {TABLE.name} does not know its project and licence. Look "
        "them up and add a row."
    )


def origin(library: Library, source: Path) -> Origin:
    """Version and licence texts of `library`, whose file is `source`.

    Raises ReleaseError where the version, or every text, is missing.
    """
    found = _debian(source) or _rpm(source) or _windows(source) or _python(library, source)
    if found is None:
        raise ReleaseError(
            f"{source} ({library.name}) belongs to no package of dpkg or rpm and is not part of "
            f"{sys.base_prefix}: its version and licence cannot be told."
        )
    texts = found.texts or standard_text(library)
    return Origin(found.version, found.purl, texts | _common(library, texts.values()))


def linked_version(library: Library) -> str:
    """Of a library that is inside the Python that runs this."""
    if library.name == "openssl":
        return ssl.OPENSSL_VERSION.split()[1]
    if library.name == "zlib":
        return zlib.ZLIB_RUNTIME_VERSION
    if library.name == "expat":
        return pyexpat.EXPAT_VERSION.removeprefix("expat_")
    if library.name == "mpdecimal":
        return decimal.__libmpdec_version__
    if library.name == "sqlite":
        import sqlite3  # which not every Python has

        return sqlite3.sqlite_version
    return f"of CPython {platform.python_version()}"


def standard_text(library: Library) -> dict[str, str]:
    """For where nobody on this machine has its text. Raises ReleaseError where we have none."""
    if library.licence == "Apache-2.0":
        return {"the standard text": apache_terms()}
    file = TEXTS / f"{library.name}.txt"
    if file.is_file():
        return {"its authors' terms": _read(file)}
    terms = cpython_licence()
    if "Microsoft Distributable Code" in terms and library.name.startswith("microsoft"):
        # What python.org, and who builds as it does, say of the runtime that they pass on.
        return {"CPython's LICENSE, on the Microsoft runtime": terms}
    raise ReleaseError(
        f"No licence text of {library.name} was found on this machine, and {TEXTS} has none. "
        "Install its package with documentation, or add the text."
    )


def apache_terms() -> str:
    """Apache-2.0 in full, from a package of the lock that carries exactly that."""
    return dist_text("huggingface-hub", "LICENSE")


def _paths(source: Path) -> Iterable[str]:
    """The names by which a package may know a file: /lib is /usr/lib on merged systems."""
    for path in dict.fromkeys([source, source.resolve(), source.parent.resolve() / source.name]):
        yield str(path)
        if str(path).startswith("/usr/"):
            yield str(path).removeprefix("/usr")


def _run(*command: str) -> str | None:
    """stdout, or None where the program is not there or says no."""
    if not shutil.which(command[0]):
        return None
    environment = os.environ | {"LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.stdout if done.returncode == 0 else None


def _debian(source: Path) -> Origin | None:
    for path in _paths(source):
        owner = _run("dpkg-query", "--search", path)
        if owner is None:
            continue
        package = owner.splitlines()[0].partition(": ")[0]
        form = "${Package} ${Version} ${Architecture}"
        name, version, arch = (_run("dpkg-query", "-W", "-f", form, package) or "").split()
        file = _DOC / name / "copyright"
        texts = {f"Debian's {name} {version}": _read(file)} if file.is_file() else {}
        return Origin(version, f"pkg:deb/debian/{name}@{version}?arch={arch}", texts)
    return None


def _rpm(source: Path) -> Origin | None:
    """The files that a package marks as its licence, else those of a sibling of one source."""
    form = "%{NAME} %{VERSION}-%{RELEASE} %{ARCH} %{SOURCERPM}\n"
    for path in _paths(source):
        owner = _run("rpm", "--query", "--queryformat", form, "--file", path)
        if owner is None:
            continue
        name, version, arch, made_from = owner.splitlines()[0].split()
        rows = (_run("rpm", "--query", "--all", "--queryformat", form) or "").splitlines()
        siblings = [row.split()[0] for row in rows if row.split()[3] == made_from]
        for package in [name, *sorted(siblings)]:
            files = (_run("rpm", "--query", "--licensefiles", package) or "").splitlines()
            texts = {
                f"{package} {version}, {f}": _read(Path(f)) for f in files if Path(f).is_file()
            }
            if texts:
                break
        else:
            texts = {}
        return Origin(version, f"pkg:rpm/{name}@{version}?arch={arch}", texts)
    return None


def _windows(source: Path) -> Origin | None:
    """A library of the system's that may be passed on: the version that it states."""
    if platform.system() != "Windows" or not source.is_relative_to(os.environ["SYSTEMROOT"]):
        return None
    from PyInstaller.utils.win32.versioninfo import read_version_info_from_executable

    facts = read_version_info_from_executable(str(source)).ffi
    halves = (facts.fileVersionMS, facts.fileVersionLS)
    version = ".".join(f"{half >> 16}.{half & 0xFFFF}" for half in halves)
    return Origin(version, None, {})


def _python(library: Library, source: Path) -> Origin | None:
    """A library that came with the Python that is frozen in."""
    if not source.resolve().is_relative_to(Path(sys.base_prefix).resolve()):
        return None
    return Origin(linked_version(library), None, {})


def cpython_licence() -> str:
    """The licence of the Python that is frozen in. Raises ReleaseError where it is not found."""
    places = [Path(sysconfig.get_path("stdlib")), Path(sys.base_prefix)]
    for place in places:
        for name in ("LICENSE.txt", "LICENSE"):
            if (place / name).is_file():
                return _read(place / name)
    for package in (f"libpython{sys.version_info[0]}.{sys.version_info[1]}-minimal",):
        file = _DOC / package / "copyright"
        if file.is_file():
            return _read(file)
    raise ReleaseError(f"CPython's LICENSE is in none of {', '.join(map(str, places))}.")


def dist_text(name: str, file: str) -> str:
    """A licence file of an installed package, by the end of its path. Raises ReleaseError."""
    for path in metadata.distribution(name).files or ():
        if f"/{path}".endswith(f"/{file}") and ".dist-info" in str(path):
            return _read(Path(str(path.locate())))
    raise ReleaseError(f"{name} has no {file} in its dist-info.")


def _common(library: Library, texts: Iterable[str]) -> dict[str, str]:
    """The standard text that a Debian copyright file refers to, by the library's own licence."""
    names = [
        n
        for spdx, n in _COMMON_NAMES.items()
        if re.search(rf"\b{re.escape(spdx)}\b", library.licence)
    ]
    return {
        f"{_COMMON / name}": _read(_COMMON / name)
        for name in names
        if any(str(_COMMON) in text for text in texts) and (_COMMON / name).is_file()
    }


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
