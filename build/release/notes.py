"""Release notes: the changelog's section of one version, and no sentence besides.

    python -m release.notes 0.1.0

It must never invent: a version without a section, or with an empty one, is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANGELOG = Path(__file__).resolve().parents[2] / "CHANGELOG.md"
_HEADING = re.compile(r"^## +(.*?)\s*$", flags=re.MULTILINE)
_VERSION = re.compile(r"\[([^\]]+)\](?: - (\S+))?")


@dataclass(frozen=True)
class Section:
    """`## [version] - day` and what stands below it. `day` is as written, None without one."""

    version: str
    day: str | None
    body: str

    @property
    def date(self) -> date | None:
        """None where `day` is no date."""
        try:
            return date.fromisoformat(self.day or "")
        except ValueError:
            return None


def sections(changelog: str) -> list[Section]:
    """In their order, `Unreleased` among them. Raises ValueError for a heading of another form."""
    found = []
    parts = _HEADING.split(changelog)
    for heading, body in zip(parts[1::2], parts[2::2], strict=True):
        match = _VERSION.fullmatch(heading)
        if match is None:
            raise ValueError(
                f"the changelog's heading {heading!r} is not `## [VERSION] - YYYY-MM-DD`."
            )
        # Link definitions, which Keep a Changelog puts at the end, are no part of a section.
        text = re.sub(r"^\[[^\]]+\]: \S+$", "", body, flags=re.MULTILINE)
        found.append(Section(match[1], match[2], text.strip()))
    return found


def notes(changelog: str, version: str) -> str:
    """Raises ValueError, naming the versions that there are, where there is nothing to say."""
    known = sections(changelog)
    for section in known:
        if section.version == version:
            # Headings alone say nothing.
            if not re.search(r"^(?!#)\S", section.body, flags=re.MULTILINE):
                raise ValueError(f"the changelog's section [{version}] is empty.")
            return section.body + "\n"
    names = ", ".join(section.version for section in known) or "none"
    raise ValueError(f"the changelog has no section [{version}]. It has: {names}.")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print the release notes of a version.")
    parser.add_argument("version")
    args = parser.parse_args(arguments)
    try:
        print(notes(CHANGELOG.read_text(encoding="utf-8"), args.version), end="")
    except ValueError as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
