"""`cortex-embed bundle`: the slim executable and a model into one file of a person's own.

    copy of the slim file up to its archive's table of contents | the model as a blob
    | table of contents with one row more | cookie

It needs no Python and no compiler, since the executable runs this itself. It must never
change the file that it starts from, and never leave half a file under the name asked for.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import ModelFileError, OutputError, UsageError
from cortex_embed.models.artifact import load_artifact
from cortex_embed.onefile import blob, pkg
from cortex_embed.onefile.start import MODEL, RUNTIME

if TYPE_CHECKING:
    import argparse
    from typing import BinaryIO

    from cortex_embed.models.artifact import Artifact

_CHUNK = 4 * 2**20
_ELF = b"\x7fELF"
_SLIM = "Name the slim release asset of this platform with --from."


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    model: Path
    output: Path
    slim: Path | None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        return cls(arguments.model, arguments.output, getattr(arguments, "from"))


def run(options: Options) -> int:
    """Write the file. Raises UsageError, ModelFileError, OutputError."""
    if sys.platform == "darwin":
        raise UsageError(
            "bundle: a macOS executable is signed and cannot be added to. Use the directory form "
            "of the release with --model-dir, or `nox -s freeze -- --model DIR` in a checkout."
        )
    slim = options.slim or _this_executable()
    artifact = load_artifact(options.model)
    artifact.verify()
    partial = options.output.with_name(options.output.name + ".part")
    try:
        with slim.open("rb") as source:
            archive = _slim_archive(slim, source)
            with partial.open("wb") as out:
                _write(source, archive, artifact, out)
        partial.chmod(0o755)
        _check(partial, artifact)
        partial.replace(options.output)
    except OSError as why:
        raise OutputError(
            f"cannot make {options.output}: {why.filename or slim}: {why.strerror or why}."
        ) from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    size = options.output.stat().st_size / 1e6
    print(f"{options.output}: {size:.0f} MB, serves {artifact.spec.id} by default", file=sys.stderr)
    return 0


def _this_executable() -> Path:
    if not getattr(sys, "frozen", False):
        raise UsageError(f"bundle: this is not an executable but Python. {_SLIM}")
    return Path(sys.executable)


def _slim_archive(slim: Path, source: BinaryIO) -> pkg.Archive:
    try:
        archive = pkg.read(source)
    except ModelFileError:
        raise UsageError(f"bundle: {slim} is no cortex-embed executable. {_SLIM}") from None
    if RUNTIME not in archive.blobs:
        raise UsageError(f"bundle: {slim} is not the one-file form. {_SLIM}")
    if MODEL in archive.blobs:
        raise UsageError(f"bundle: {slim} carries a model already. {_SLIM}")
    return archive


def _write(source: BinaryIO, archive: pkg.Archive, artifact: Artifact, out: BinaryIO) -> None:
    source.seek(0)
    left = archive.toc
    while left and (chunk := source.read(min(left, _CHUNK))):
        out.write(chunk)
        left -= len(chunk)
    begin = out.tell()
    names = ("manifest.json", *artifact.files)
    blob.write(out, {name: artifact.directory / name for name in names}, {})
    end = out.tell()
    row = pkg.toc_entry(MODEL, begin - archive.start, end - begin)
    toc = archive.raw_toc + row
    out.write(toc + pkg.cookie_of(archive, end - archive.start, len(toc)))
    _drop_sections(out, source)


def _drop_sections(out: BinaryIO, source: BinaryIO) -> None:
    """The ELF section table lay behind the archive. The kernel needs none: say that there is none.

    Field offsets are those of the ELF-64 header (`man 5 elf`): e_shoff 40, e_shnum 60,
    e_shstrndx 62.
    """
    source.seek(0)
    if source.read(4) != _ELF:
        return
    for offset, size in ((40, 8), (60, 4)):
        out.seek(offset)
        out.write(bytes(size))


def _check(made: Path, artifact: Artifact) -> None:
    """Read back what was written, as a start will."""
    with made.open("rb") as file:
        archive = pkg.read(file)
        index = blob.read_index(file, *archive.blobs[MODEL])
    if set(index.files) != {"manifest.json", *artifact.files}:
        raise OutputError(f"{made} does not read back as it was written")
