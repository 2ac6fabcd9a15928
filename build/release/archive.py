"""Write, and read back, a release archive: one top directory, the same bytes from the same files.

Sorted names, one date, no owner, two modes; the compressor's own date is left out. It must
never store what would unpack outside of the top directory.
"""

from __future__ import annotations

import gzip
import posixpath
import shutil
import stat
import tarfile
import time
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# Three times as long as level 6 for 0.4 %, which keeps the one file within its 60 MB.
_LEVEL = 9
_EXECUTABLE, _PLAIN = 0o755, 0o644


def stem(name: str) -> str:
    """The archive's top directory: its name without `.tar.gz` or `.zip`."""
    return name.removesuffix(".tar.gz").removesuffix(".zip")


def tree(root: Path) -> dict[str, Path]:
    """Every file and symbolic link below `root` by its path in there, with slashes."""
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def write(out: Path, files: Mapping[str, Path], *, executable: str, epoch: int) -> None:
    """Write `files` (path below the top directory to a file here) as the archive `out`.

    Mode 755 for `executable` and for what may be executed here, 644 for the rest. Raises
    ValueError for a name that leaves the top directory, or a link in a zip; OSError.
    """
    for name in files:
        if name.startswith("/") or ".." in PurePosixPath(name).parts:
            raise ValueError(f"{name!r} would be unpacked outside of {stem(out.name)}/.")
    if out.suffix == ".zip":
        _write_zip(out, files, executable, epoch)
    else:
        _write_tar(out, files, executable, epoch)


def _mode(name: str, path: Path, executable: str) -> int:
    runs = name == executable or path.stat().st_mode & stat.S_IXUSR
    return _EXECUTABLE if runs else _PLAIN


def _directories(files: Mapping[str, Path]) -> set[str]:
    return {str(parent) for name in files for parent in PurePosixPath(name).parents}


def _write_tar(out: Path, files: Mapping[str, Path], executable: str, epoch: int) -> None:
    top = stem(out.name)
    with (
        out.open("wb") as raw,
        gzip.GzipFile("", "wb", _LEVEL, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted({*files, *_directories(files)}):
            info = tarfile.TarInfo(top if name == "." else f"{top}/{name}")
            info.mtime = epoch
            path = files.get(name)
            if path is None:
                info.type, info.mode = tarfile.DIRTYPE, _EXECUTABLE
                archive.addfile(info)
            elif path.is_symlink():
                info.type, info.mode = tarfile.SYMTYPE, 0o777
                info.linkname = path.readlink().as_posix()
                archive.addfile(info)
            else:
                info.size, info.mode = path.stat().st_size, _mode(name, path, executable)
                with path.open("rb") as file:
                    archive.addfile(info, file)


def _write_zip(out: Path, files: Mapping[str, Path], executable: str, epoch: int) -> None:
    top = stem(out.name)
    date = time.gmtime(epoch)[:6]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
        for name, path in sorted(files.items()):
            if path.is_symlink():
                raise ValueError(f"{name} is a symbolic link, which a zip archive cannot carry.")
            info = zipfile.ZipInfo(f"{top}/{name}", date)
            info.create_system = 3  # Unix, wherever it is written: or the modes are lost
            info.external_attr = (stat.S_IFREG | _mode(name, path, executable)) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            info.file_size = path.stat().st_size
            with archive.open(info, "w") as target, path.open("rb") as file:
                while chunk := file.read(2**20):
                    target.write(chunk)


@dataclass(frozen=True)
class Member:
    """One entry of an archive. `mode` holds the permission bits."""

    name: str
    mode: int
    is_directory: bool
    link: str | None = None


class Reader:
    """An archive that is open for reading."""

    def __init__(self, archive: tarfile.TarFile | zipfile.ZipFile) -> None:
        self._archive = archive

    def members(self) -> list[Member]:
        """In the archive's order."""
        if isinstance(self._archive, zipfile.ZipFile):
            return [
                Member(i.filename, i.external_attr >> 16 & 0o7777, i.is_dir())
                for i in self._archive.infolist()
            ]
        return [
            Member(i.name, i.mode, i.isdir(), i.linkname if i.issym() or i.islnk() else None)
            for i in self._archive.getmembers()
        ]

    def unpack(self, directory: Path) -> None:
        """Everything, with its modes. Raises ValueError for what would leave `directory`.

        Not by `extractall`: PEP 706's filters are not in every 3.11 (Debian's is 3.11.2).
        """
        for member in self.members():
            inside = posixpath.join(posixpath.dirname(member.name), member.link or "")
            for path in (member.name, posixpath.normpath(inside)):
                if path.startswith("/") or ".." in path.split("/"):
                    raise ValueError(f"{member.name} would leave the directory")
            out = directory / member.name
            if member.is_directory:
                out.mkdir(parents=True, exist_ok=True)
                continue
            out.parent.mkdir(parents=True, exist_ok=True)
            if member.link is not None:
                out.symlink_to(member.link)
                continue
            with self.open(member.name) as source, out.open("wb") as target:
                shutil.copyfileobj(source, target, 2**20)
            out.chmod(member.mode)

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """A regular file of the archive. Raises KeyError where there is none."""
        if isinstance(self._archive, zipfile.ZipFile):
            with self._archive.open(name) as file:
                yield file
            return
        found = self._archive.extractfile(name)
        if found is None:
            raise KeyError(f"{name} is no file")
        with found:
            yield found


@contextmanager
def reading(path: Path) -> Iterator[Reader]:
    """Raises OSError, tarfile.TarError, zipfile.BadZipFile, EOFError for what is no archive."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            yield Reader(archive)
    else:
        with tarfile.open(path, "r:gz") as tar:
            yield Reader(tar)
