"""Do tag, version, changelog, table, notes, sums and assets agree? All that do not, at once.

    python -m release.check v0.1.0 [--notes FILE]
    python -m release.check v0.1.0 --assets dist/release [--this-target] [--rehearsal]

The first is asked before anything is built, the second before anything is published. It must
never mend what it finds, nor stop at the first.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import targets
from release import check_assets
from release.notes import notes, sections

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from targets import Table

ROOT = Path(__file__).resolve().parents[2]
# One spelling, PEP 440's normal form: then the tag is `v` and what `--version` and the wheel say.
_TAG = re.compile(r"v\d+\.\d+\.\d+((a|b|rc)\d+)?")
_ASSET = re.compile(r"cortex-embed-(?:slim-|onedir-)?[a-z]+-(?:x64|arm64)\.(?:tar\.gz|zip)")


@dataclass(frozen=True)
class Tree:
    """A checkout, and the tag that it is to be released as."""

    root: Path
    tag: str
    table: Table
    repository: str | None
    """`owner/name` of where the workflow runs; None outside of it."""

    @property
    def version(self) -> str:
        """What the tree itself says. Raises ValueError."""
        file = self.root / "app" / "cortex_embed" / "__init__.py"
        match = re.search(r'^__version__ = "(.+)"$', file.read_text(encoding="utf-8"), re.MULTILINE)
        if match is None:
            raise ValueError(f"{file} states no __version__.")
        return match[1]

    def text(self, name: str) -> str:
        return (self.root / name).read_text(encoding="utf-8")


def tag_and_version(tree: Tree) -> Iterator[str]:
    if not _TAG.fullmatch(tree.tag):
        yield (
            f"The tag is {tree.tag!r}. A release's is like v0.1.0, a pre-release's like v0.1.0rc1 "
            "(PEP 440's form, not v0.1.0-rc.1)."
        )
    if tree.tag != f"v{tree.version}":
        yield f"The tag is {tree.tag}, __version__ is {tree.version}: they must be equal but for `v`."


def changelog(tree: Tree) -> Iterator[str]:
    text = tree.text("CHANGELOG.md")
    try:
        known = sections(text)
    except ValueError as why:
        yield f"CHANGELOG.md: {why}"
        return
    released = [s for s in known if s.version != "Unreleased"]
    if not released:
        yield f"CHANGELOG.md has no section of a version; {tree.version} needs one."
        return
    newest = released[0]
    if newest.version != tree.version:
        yield f"CHANGELOG.md begins with [{newest.version}], __version__ is {tree.version}."
    if known[0].version != "Unreleased" and any(s.version == "Unreleased" for s in known):
        yield f"CHANGELOG.md has [Unreleased] below [{known[0].version}]: it belongs above."
    for section in known:
        if section.version == "Unreleased" and section.body:
            first = section.body.splitlines()[0]
            yield f"CHANGELOG.md has {first!r} under [Unreleased], which {tree.tag} would release."
    for section in released:
        if section.date is None:
            yield f"CHANGELOG.md dates [{section.version}] {section.day!r}, not YYYY-MM-DD."
    if newest.date and newest.date > datetime.now(UTC).date():
        yield f"CHANGELOG.md dates [{newest.version}] {newest.day}, which is yet to come."
    yield from _order([s.version for s in released])
    yield from _links(tree, text)


def _order(versions: list[str]) -> Iterator[str]:
    from packaging.version import InvalidVersion, Version

    for version in sorted({v for v in versions if versions.count(v) > 1}):
        yield f"CHANGELOG.md has two sections [{version}]."
    try:
        parsed = [Version(version) for version in versions]
    except InvalidVersion as why:
        yield f"CHANGELOG.md: {why}."
        return
    for above, below in pairwise(parsed):
        if above < below:
            yield f"CHANGELOG.md has [{above}] above [{below}]: the newest comes first."


def _links(tree: Tree, text: str) -> Iterator[str]:
    """Keep a Changelog's link definitions are not required, but must lead to the release."""
    ours = f"https://github.com/{tree.table.release.repository}/"
    for version, address in re.findall(r"^\[([^\]]+)\]: (\S+)$", text, flags=re.MULTILINE):
        end = "HEAD" if version == "Unreleased" else f"v{version}"
        if not address.startswith(ours) or not address.endswith(end):
            yield f"CHANGELOG.md's link of [{version}] is {address}, not {ours}…{end}."


def release_notes(tree: Tree) -> Iterator[str]:
    try:
        notes(tree.text("CHANGELOG.md"), tree.version)
    except ValueError as why:
        yield f"There are no release notes: {why}"


def downloads(tree: Tree) -> Iterator[str]:
    """README's table, line by line."""
    match = re.search(
        r"<!-- downloads -->\n(.*?)\n<!-- /downloads -->", tree.text("README.md"), flags=re.DOTALL
    )
    found = match[1].splitlines() if match else []
    wanted = tree.table.downloads().splitlines()
    for line in wanted:
        if line not in found:
            yield f"README.md's downloads lack the row {line[:60]!r}… of targets.toml."
    for line in found:
        if line not in wanted:
            yield f"README.md's downloads have the row {line[:60]!r}…, which targets.toml has not."


def install_scripts(tree: Tree) -> Iterator[str]:
    """They name their platforms' archives: together all of the table's, and no other."""
    directory = tree.root / "build" / "install"
    for name, systems in (("install.sh", {"linux", "macos"}), ("install.ps1", {"windows"})):
        file = directory / name
        if not file.is_file():
            yield f"{file.relative_to(tree.root)} is missing."
            continue
        found = set(_ASSET.findall(file.read_text(encoding="utf-8")))
        chosen = [t for t in tree.table.targets if t.os in systems]
        wanted = {target.asset(form) for target in chosen for form in targets.FORMS}
        for asset in sorted(wanted - found):
            yield f"{name} does not know {asset}, which targets.toml has."
        for asset in sorted(found - wanted):
            yield f"{name} knows {asset}, which targets.toml has not."


def repository(tree: Tree) -> Iterator[str]:
    stated = tree.table.release.repository
    if tree.repository is not None and tree.repository != stated:
        yield f"This runs in {tree.repository}, targets.toml says {stated}."


CHECKS: tuple[Callable[[Tree], Iterator[str]], ...] = (
    tag_and_version, changelog, release_notes, downloads, install_scripts, repository,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Find what disagrees in a release.")
    parser.add_argument("tag", help="such as v0.1.0")
    parser.add_argument("--assets", type=Path, metavar="DIR", help="what is to be published")
    parser.add_argument("--this-target", action="store_true", help="DIR has this machine's only")
    parser.add_argument("--rehearsal", action="store_true", help="DIR may carry another model")
    parser.add_argument("--notes", type=Path, metavar="FILE", help="write the release notes there")
    args = parser.parse_args(arguments)
    table = targets.load()
    tree = Tree(ROOT, args.tag, table, os.environ.get("GITHUB_REPOSITORY"))
    wrong = [sentence for check in CHECKS for sentence in check(tree)]
    compared = [check.__name__.replace("_", " ") for check in CHECKS]
    if args.assets:
        chosen = [targets.here(table)] if args.this_target else table.targets
        assets = check_assets.Assets(
            args.assets, tree.root, table, tuple(chosen), tree.version, args.rehearsal
        )
        wrong += [sentence for check in check_assets.CHECKS for sentence in check(assets)]
        compared += [check.__name__.replace("_", " ") for check in check_assets.CHECKS]
    for sentence in wrong:
        print(f"- {sentence}", file=sys.stderr)
    if wrong:
        print(f"{args.tag} cannot be released: {len(wrong)} disagreements.", file=sys.stderr)
        return 1
    if args.notes:
        args.notes.write_text(notes(tree.text("CHANGELOG.md"), tree.version), encoding="utf-8")
    print(f"{args.tag}: these agree: {', '.join(compared)}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
