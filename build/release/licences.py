"""THIRD-PARTY-LICENSES.txt: under which terms each part of a bundle is, and their full texts.

It must never name a component without a text: a component whose text was not found is an error,
since redistribution without it may not be allowed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from release import ReleaseError
from release.inventory import OURS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from release.inventory import Component

FILE = "THIRD-PARTY-LICENSES.txt"
_RULE = "=" * 78
_INTRODUCTION = """\
cortex-embed itself is under the MIT licence: see LICENSE.
What follows is in its executables besides: first a list, then the texts. A text that several
components share is printed once. The slim form carries no model.
"""


def text(components: Sequence[Component]) -> str:
    """The whole file. Raises ReleaseError naming every component without a text."""
    others = sorted((c for c in components if c.name != OURS), key=lambda c: c.name.lower())
    bare = [f"{c.name} {c.version}" for c in others if not any(t.strip() for t in c.texts.values())]
    if bare:
        raise ReleaseError(
            f"no licence text was found of {', '.join(bare)}. A bundle is not passed on without: "
            "add its source to build/release/inventory.py or libraries.toml."
        )
    lines = [_INTRODUCTION]
    lines += [f"  {c.name} {c.version}: {c.licence}" for c in others]
    shown: dict[str, str] = {}
    for component in others:
        lines += ["", _RULE, f"{component.name} {component.version}", component.licence, _RULE]
        for origin, content in component.texts.items():
            lines.append("")
            if content in shown:
                lines.append(f"({origin}: the same text as under {shown[content]}, above)")
                continue
            shown[content] = component.name
            lines += [f"--- {origin}", "", content.strip()]
        lines += _crates(component)
    return "\n".join(lines) + "\n"


def _crates(component: Component) -> list[str]:
    """What its Rust compiler linked in or used, by the wheel's own list."""
    if not component.crates:
        return []
    rows = {f"  {c['name']} {c['version']}: {_of(c)}" for c in component.crates}
    return [
        "",
        f"{component.name} was built with these Rust crates (the SBOM in its wheel; some only at",
        "build time). Their authors and texts are at https://crates.io/crates/NAME/VERSION.",
        "",
        *sorted(rows),
    ]


def _of(crate: dict[str, object]) -> str:
    """The SPDX expression of a CycloneDX component. Raises ReleaseError where it has none."""
    found = crate.get("licenses")
    for choice in found if isinstance(found, list) else ():
        named = choice.get("license", {})
        stated = choice.get("expression") or named.get("id") or named.get("name")
        if stated:
            return str(stated)
    raise ReleaseError(f"the crate {crate['name']} {crate['version']} states no licence.")
