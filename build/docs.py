"""Write the generated blocks of README.md: the settings table and the exit codes.

They are made from the same table that makes the flags, so they cannot drift; a test
compares them. It must never touch a line outside the markers.
"""

from __future__ import annotations

import re
from pathlib import Path

from cortex_embed import cli
from cortex_embed.config import rows

README = Path(__file__).resolve().parent.parent / "README.md"


def settings_table() -> str:
    """One Markdown row a setting."""
    lines = ["| flag | environment | default | meaning |", "|---|---|---|---|"]
    for row in rows():
        flag = row.flag if row.is_switch else f"{row.flag} {row.metavar}"
        lines.append(f"| `{flag}` | `{row.env}` | {row.shown} | {row.help} |")
    return "\n".join(lines)


def exit_codes() -> str:
    """One Markdown row an exit code, from the text that --help prints."""
    found = re.findall(r"^  (\S+)  (.+)$", cli.EXIT_CODES, flags=re.MULTILINE)
    return "\n".join(["| code | meaning |", "|---|---|", *(f"| {c} | {m} |" for c, m in found)])


def generated(readme: str) -> str:
    """`readme` with its blocks made anew. Raises ValueError where a marker is missing."""
    for name, content in (("settings", settings_table()), ("exit codes", exit_codes())):
        before, opening, rest = readme.partition(f"<!-- {name} -->\n")
        _, closing, after = rest.partition(f"\n<!-- /{name} -->")
        if not opening or not closing:
            raise ValueError(f"README.md must have a block marked {name!r}")
        readme = before + opening + content + closing + after
    return readme


if __name__ == "__main__":
    README.write_text(generated(README.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"Wrote the generated blocks of {README}")
