"""Install scripts, and manifests for Homebrew, Scoop and winget: from the table and the sums.

    python -m release.manifests                 # dist/release/SHA256SUMS -> dist/release
    python -m release.manifests --scripts       # the tables inside build/install/install.*

It must never invent a hash: an asset that the sums do not name is an error. Package managers
get the full asset, one executable: Homebrew rewrites the libraries of a directory form, and
winget starts a command by a link, which a directory form's executable does not follow.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tomllib
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import targets
from cortex_embed import __version__
from release import sums

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from targets import Table, Target

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = ROOT / "build" / "install"
SCRIPTS = ("install.sh", "install.ps1")
FORMULA, SCOOP = "cortex-embed.rb", "cortex-embed.json"
WINGET_SCHEMA = "1.10.0"
WINGET_IDENTIFIER = "CortexEmbed.CortexEmbed"
# File of the manifest, by winget's rule for names, to its template.
WINGET = {
    f"{WINGET_IDENTIFIER}.yaml": "version",
    f"{WINGET_IDENTIFIER}.installer.yaml": "installer",
    f"{WINGET_IDENTIFIER}.locale.en-US.yaml": "locale.en-US",
}
BEGIN, END = "# targets: begin (python -m release.manifests --scripts)\n", "# targets: end\n"

# Homebrew's names: of the systems, and of macOS by its first number.
_BREW_SYSTEMS = {"macos": "on_macos", "linux": "on_linux"}
_BREW_ARCHES = {"arm64": "on_arm", "x64": "on_intel"}
_BREW_MACOS = {13: "ventura", 14: "sonoma", 15: "sequoia", 26: "tahoe"}
_SCOOP_ARCHES = {"x64": "64bit", "arm64": "arm64"}


def _names(table: Table, *systems: str) -> list[Target]:
    return [target for target in table.targets if target.os in systems]


def shell_block(table: Table) -> str:
    """The table as install.sh reads it: a line a target."""
    rows = [
        " ".join((target.name, target.minimum, *map(target.asset, targets.FORMS)))
        for target in _names(table, "linux", "macos")
    ]
    return "\n".join(
        (
            f"REPOSITORY='{table.release.repository}'",
            f"SUMS='{targets.SUMS}'",
            "# Target, C library or system, its oldest version, the assets: full, slim, onedir.",
            "targets() {",
            "    cat <<'TABLE'",
            *rows,
            "TABLE",
            "}\n",
        )
    )


def powershell_block(table: Table) -> str:
    """The table as install.ps1 reads it: a hash table by target."""
    lines = [
        f"$Repository = '{table.release.repository}'",
        f"$SumsName = '{targets.SUMS}'",
        "$Targets = @{",
    ]
    for target in _names(table, "windows"):
        minimum = ".".join(map(str, target.minimum_version))
        lines.append(f"    '{target.name}' = @{{")
        lines.append(f"        Minimum = '{minimum}'")
        lines += [f"        {form} = '{target.asset(form)}'" for form in targets.FORMS]
        lines.append("    }")
    return "\n".join((*lines, "}\n"))


def script(name: str, text: str, table: Table) -> str:
    """`text` of script `name` with its block made anew. Raises ValueError without the markers."""
    before, opening, rest = text.partition(BEGIN)
    _, closing, after = rest.partition(END)
    if not opening or not closing:
        raise ValueError(f"{name} must have one block between {BEGIN!r} and {END!r}.")
    block = shell_block(table) if name.endswith(".sh") else powershell_block(table)
    return before + opening + block + closing + after


def _digest(target: Target, digests: Mapping[str, str]) -> str:
    """SHA-256 of the full asset, as hex. Raises ValueError where the sums do not name it."""
    name = target.asset("full")
    if name not in digests:
        raise ValueError(
            f"{targets.SUMS} has no line for {name}: no manifest can be made. Build it, or take "
            f"{target.name} out of {targets.TABLE.name}."
        )
    return digests[name]


def _about(table: Table, version: str) -> dict[str, str]:
    """What every manifest says: pyproject.toml's words."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {
        "version": version,
        # Homebrew's and Scoop's descriptions end without a full stop.
        "description": project["description"].removesuffix("."),
        "license": project["license"],
        "homepage": f"https://github.com/{table.release.repository}",
        "publisher": table.release.repository.split("/", maxsplit=1)[0],
        "tags": "\n".join(f"  - {keyword}" for keyword in project["keywords"]),
        "identifier": WINGET_IDENTIFIER,
        "schema": WINGET_SCHEMA,
        "sums_name": targets.SUMS,
    }


def formula(table: Table, version: str, digests: Mapping[str, str]) -> str:
    """Homebrew's, for a tap: `brew install OWNER/TAP/cortex-embed`. Raises ValueError."""
    blocks = []
    for system, block in _BREW_SYSTEMS.items():
        lines = [f"  {block} do"]
        for target in _names(table, system):
            lines.append(f"    {_BREW_ARCHES[target.arch]} do")
            lines.append(f'      url "{table.release.tagged(version)}/{target.asset("full")}"')
            lines.append(f'      sha256 "{_digest(target, digests)}"')
            if system == "macos":
                lines.append(f"      depends_on macos: :{_macos_name(target)}")
            lines.append("    end")
        blocks.append("\n".join((*lines, "  end\n")))
    minimums = [f"        {t.name}: {t.minimum}" for t in _names(table, *_BREW_SYSTEMS)]
    return _filled(
        TEMPLATES / f"{FORMULA}.in",
        _about(table, version) | {"systems": "\n".join(blocks), "minimums": "\n".join(minimums)},
    )


def _macos_name(target: Target) -> str:
    """Homebrew knows no minor version; the caveats do."""
    major = target.minimum_version[0]
    if major not in _BREW_MACOS:
        raise ValueError(f"{target.name}: Homebrew's name of macOS {major} is not known here.")
    return _BREW_MACOS[major]


def scoop(table: Table, version: str, digests: Mapping[str, str]) -> str:
    """Scoop's manifest, which finds newer releases by itself. Raises ValueError."""
    about = _about(table, version)
    architecture, update = {}, {}
    for target in _names(table, "windows"):
        name = target.asset("full")
        arch = _SCOOP_ARCHES[target.arch]
        architecture[arch] = {
            "url": f"{table.release.tagged(version)}/{name}",
            "hash": _digest(target, digests),
            "extract_dir": name.removesuffix(f".{target.archive}"),
        }
        update[arch] = {"url": f"{table.release.tagged('$version')}/{name}"}
    manifest = {
        "version": version,
        "description": about["description"],
        "homepage": about["homepage"],
        "license": about["license"],
        "architecture": architecture,
        "bin": "cortex-embed.exe",
        "checkver": {"github": about["homepage"]},
        "autoupdate": {
            "architecture": update,
            "hash": {"url": f"$baseurl/{targets.SUMS}"},
        },
    }
    return json.dumps(manifest, indent=4) + "\n"


def winget(table: Table, version: str, digests: Mapping[str, str]) -> dict[str, str]:
    """The three files of winget's manifest by name. Raises ValueError."""
    installers: list[str] = []
    for target in _names(table, "windows"):
        name = target.asset("full")
        minimum = ".".join(map(str, (*target.minimum_version, 0, 0, 0)[:4]))
        top = name.removesuffix(f".{target.archive}")
        installers += [
            f"  - Architecture: {target.arch}",
            f"    MinimumOSVersion: {minimum}",
            f"    InstallerUrl: {table.release.tagged(version)}/{name}",
            # Quoted: digits alone, or digits and one E, would be a number.
            f'    InstallerSha256: "{_digest(target, digests).upper()}"',
            "    NestedInstallerFiles:",
            f"      - RelativeFilePath: {top}\\{target.exe}",
            "        PortableCommandAlias: cortex-embed",
        ]
    values = _about(table, version) | {"installers": "\n".join(installers)}
    return {
        name: _filled(TEMPLATES / "winget" / f"{template}.yaml.in", values)
        for name, template in WINGET.items()
    }


def _filled(template: Path, values: Mapping[str, str]) -> str:
    return Template(template.read_text(encoding="utf-8")).substitute(values)


def names() -> tuple[str, ...]:
    """Every file that `write` makes: release assets that belong to no target."""
    return (*SCRIPTS, FORMULA, SCOOP, *WINGET)


def write(table: Table, version: str, digests: Mapping[str, str], out: Path) -> None:
    """Put scripts and manifests into `out`. Raises ValueError, and has then written nothing."""
    made = {
        FORMULA: formula(table, version, digests),
        SCOOP: scoop(table, version, digests),
        **winget(table, version, digests),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    for name in SCRIPTS:
        shutil.copy2(TEMPLATES / name, out / name)


def write_scripts(table: Table) -> Iterable[str]:
    """Make the blocks of the scripts anew; the names of those that changed."""
    for name in SCRIPTS:
        path = TEMPLATES / name
        old = path.read_text(encoding="utf-8")
        new = script(name, old, table)
        if new != old:
            path.write_text(new, encoding="utf-8", newline="\n")
            yield name


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Make install scripts and package manifests.")
    parser.add_argument("--scripts", action="store_true", help="only the tables in build/install")
    parser.add_argument("--version", default=__version__, help="of the release: %(default)s")
    parser.add_argument("--release", type=Path, default=ROOT / "dist" / "release", metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="DIR", help="otherwise the release's")
    args = parser.parse_args(arguments)
    table = targets.load()
    if args.scripts:
        print(f"Changed: {', '.join(write_scripts(table)) or 'nothing'}")
        return 0
    digests, wrong = sums.read(args.release)
    try:
        if wrong:
            raise ValueError(" ".join(wrong))
        out = args.out or args.release
        write(table, args.version, digests, out)
    except ValueError as why:
        print(f"manifests: {why}", file=sys.stderr)
        return 1
    print(f"Wrote {', '.join(names())} into {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
