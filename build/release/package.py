"""Make this machine's release assets in dist/release: archives, SBOM, licences, SHA256SUMS.

    python -m release.package                    # a rehearsal, with this checkout's own model
    python -m release.package --release          # with the table's model, which the hub has
    python -m release.package --release --from dist/frozen # what was frozen before, and signed
    python -m release.package --sums-only DIR    # only SHA256SUMS, over all targets' assets

It runs where the freezing ran: licence texts and versions are asked of that machine. A rehearsal
is what a machine without the hub can make: a release in all but the model. It must never pass for
a release, which is why it says so on stdout, in a file beside the assets and in the SBOM.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import freeze
import platform_floor
import source_date
import targets
from cortex_embed import __version__
from cortex_embed.errors import EmbedError
from cortex_embed.models.catalogue import find
from release import ReleaseError, archive, licences, sbom, sums
from release.inventory import Inventory

if TYPE_CHECKING:
    from collections.abc import Sequence

    from targets import Form, Table, Target

ROOT = Path(__file__).resolve().parents[2]
OUT = ROOT / "dist" / "release"
REHEARSAL = "REHEARSAL.txt"
_LOUD = (
    "REHEARSAL: this is no release. The full assets carry {model}, not {wanted}.\n"
    "They need {floor}.\n"
    "`nox -s release-check` refuses them without --rehearsal.\n"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make this machine's release assets.")
    parser.add_argument("--from", dest="frozen", type=Path, metavar="DIR", help="freeze nothing")
    parser.add_argument("--release", action="store_true", help="with the table's model")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR")
    parser.add_argument("--sums-only", type=Path, metavar="DIR", help="of all targets' assets")
    parser.add_argument("--this-target", action="store_true", help="--sums-only for this machine")
    args = parser.parse_args(arguments)
    if args.this_target and not args.sums_only:
        parser.error("--this-target is for --sums-only.")
    table = targets.load()
    try:
        if args.sums_only:
            return collect(table, args.sums_only, only_here=args.this_target)
        frozen = args.frozen or freeze.FROZEN
        if args.frozen is None:
            freeze.main(
                ["--release", *([] if args.release else ["--rehearsal"]), "--out", str(frozen)]
            )
        make(table, frozen.resolve(), args.out, rehearsal=not args.release)
    except (ReleaseError, EmbedError, ValueError) as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    return 0


def make(table: Table, frozen: Path, out: Path, *, rehearsal: bool) -> None:
    """All assets of this machine's target into the empty directory `out`.

    Raises ReleaseError for a wrong model or version, and for what inventory, licences and SBOM
    find missing.
    """
    target = targets.here(table)
    refuse_wrong_model(table, frozen, rehearsal=rehearsal)
    refuse_wrong_version(frozen, target)
    floor, held = platform_floor.check(frozen / "full" / target.exe, target)
    if not (held or rehearsal):
        raise ReleaseError(f"{frozen} needs {floor}. Freeze it in the table's container.")
    inventory = Inventory(frozen / "full")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    notices = frozen / licences.FILE
    components = list(inventory.components.values())
    notices.write_text(licences.text(components), encoding="utf-8", newline="\n")
    bill = sbom.document(
        inventory.components, frozen / "full" / "onedir", target=target.name, version=__version__,
        rehearsal=rehearsal,
    )  # fmt: skip
    (out / target.sbom).write_text(bill, encoding="utf-8", newline="\n")
    for form in targets.FORMS:
        name = target.asset(form)
        files = contents(frozen, form, target) | {
            "LICENSE": ROOT / "LICENSE", "README.md": ROOT / "README.md", licences.FILE: notices,
        }  # fmt: skip
        archive.write(out / name, files, executable=target.exe, epoch=source_date.epoch())
        print(f"{out / name}: {(out / name).stat().st_size / 1e6:.1f} MB", flush=True)
    print(f"{out / target.sbom}: {len(components)} components")
    if rehearsal:
        said = _LOUD.format(model=model_of(frozen), wanted=table.release.model, floor=floor)
        (out / REHEARSAL).write_text(said, encoding="utf-8", newline="\n")
        print(said, end="")
    sums.write(out)
    print(f"{out / targets.SUMS}: {len(list(out.iterdir())) - 1} files")


def contents(frozen: Path, form: Form, target: Target) -> dict[str, Path]:
    """The executable, and what must lie beside it. In the directory form it has its plain name."""
    if form != "onedir":
        directory = frozen / form
        return {target.exe: directory / target.exe}
    files = archive.tree(frozen / "full" / "onedir")
    launcher = "cortex-embed-onedir" + Path(target.exe).suffix
    return {target.exe: files.pop(launcher)} | files


def model_of(frozen: Path) -> str:
    """What the full form carries. Raises ReleaseError where there is none."""
    manifest = frozen / "full" / ".work" / "model" / "manifest.json"
    try:
        return str(json.loads(manifest.read_text(encoding="utf-8"))["id"])
    except (OSError, KeyError, ValueError) as why:
        raise ReleaseError(
            f"{manifest} does not say which model was frozen ({why}). Run "
            "`nox -s freeze -- --release` first."
        ) from None


def repository_of(model_id: str) -> str:
    """Where a model of the catalogue is from, which is its name in an SBOM. Raises ReleaseError."""
    entry = find(model_id)
    if entry is None:
        raise ReleaseError(f"{model_id} is in no catalogue.")
    return entry.spec.repo


def refuse_wrong_model(table: Table, frozen: Path, *, rehearsal: bool) -> None:
    """Raises ReleaseError naming both models."""
    found, wanted = model_of(frozen), table.release.model
    if found != wanted and not rehearsal:
        raise ReleaseError(
            f"{frozen} carries {found}, {targets.TABLE.name} wants {wanted}. Freeze with that one, "
            "or rehearse: leave --release out."
        )
    if found == wanted and rehearsal:
        raise ReleaseError(f"{frozen} carries {wanted}, as a release does: say --release.")


def refuse_wrong_version(frozen: Path, target: Target) -> None:
    """Raises ReleaseError naming both versions: an executable may be older than this tree."""
    for form in ("full", "slim"):
        exe = frozen / form / target.exe
        try:
            said = subprocess.run([exe, "--version"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as why:
            raise ReleaseError(f"{exe} does not say its version: {why}.") from None
        found = said.stdout.strip()
        if found != f"cortex-embed {__version__}":
            raise ReleaseError(f"{exe} says {found!r}, this tree is {__version__}. Freeze again.")


def collect(table: Table, directory: Path, *, only_here: bool) -> int:
    """SHA256SUMS over what every target (or this machine's) brought to `directory`.

    Raises ReleaseError naming each asset that is missing.
    """
    chosen = [targets.here(table)] if only_here else table.targets
    missing = [n for target in chosen for n in target.assets if not (directory / n).is_file()]
    if missing:
        raise ReleaseError(f"{directory} lacks {', '.join(missing)}.")
    print(f"{directory / targets.SUMS}: {len(sums.write(directory))} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
