"""SHA256SUMS: one line a release asset, as `sha256sum -c` reads it.

It must never hold a line for a file that was not hashed here and now, nor for itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cortex_embed.models.artifact import hash_file
from targets import SUMS

if TYPE_CHECKING:
    from pathlib import Path

_LINE = re.compile(r"([0-9a-f]{64})  ([^/\\\s]+)")


def write(directory: Path) -> dict[str, str]:
    """Write the file over everything else in `directory`; name to SHA-256.

    Raises ValueError for what is no plain file with a plain name, OSError.
    """
    sums = {}
    for path in sorted(directory.iterdir()):
        if path.name == SUMS:
            continue
        if (
            not path.is_file()
            or path.is_symlink()
            or not _LINE.fullmatch(f"{'0' * 64}  {path.name}")
        ):
            raise ValueError(
                f"{path} cannot be a release asset: only files with a plain name (no spaces) can. "
                "Remove it."
            )
        sums[path.name] = hash_file(path)
    lines = (f"{digest}  {name}\n" for name, digest in sums.items())
    (directory / SUMS).write_bytes("".join(lines).encode())
    return sums


def read(directory: Path) -> tuple[dict[str, str], list[str]]:
    """Name to SHA-256 as stated, and what is wrong with the file itself, a sentence each."""
    file = directory / SUMS
    try:
        text = file.read_bytes().decode("utf-8")
    except FileNotFoundError:
        return {}, [f"{file} is missing. `nox -s package -- --sums-only {directory}` writes it."]
    except UnicodeDecodeError as why:
        return {}, [f"{file} is no text: {why}."]
    stated: dict[str, str] = {}
    wrong = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None:
            wrong.append(f"{SUMS}, line {number} is {line!r}, not `<SHA-256>  <name>`.")
        elif match[2] in stated:
            wrong.append(f"{SUMS}, line {number} states {match[2]} a second time.")
        else:
            stated[match[2]] = match[1]
    return stated, wrong


def disagreements(directory: Path) -> list[str]:
    """Where SHA256SUMS and the files in `directory` differ, a sentence each."""
    stated, wrong = read(directory)
    if not stated:
        return wrong or [f"{directory / SUMS} is empty."]
    present = {path.name: path for path in directory.iterdir() if path.name != SUMS}
    wrong += [
        f"{SUMS} states {name}, which is not in {directory}."
        for name in stated.keys() - present.keys()
    ]
    wrong += [
        f"{name} is in {directory}, but not in {SUMS}." for name in present.keys() - stated.keys()
    ]
    for name in sorted(stated.keys() & present.keys()):
        found = hash_file(present[name])
        if found != stated[name]:
            wrong.append(f"{name} has SHA-256 {found}, {SUMS} says {stated[name]}.")
    return wrong
