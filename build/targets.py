"""The table of release targets (targets.toml), typed; names of assets and the matrix from it.

    python build/targets.py matrix      # for the workflows: fromJSON
    python build/targets.py here        # this machine's target

It must never hold a target's facts itself: they are rows of the table.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = Path(__file__).resolve().parent / "targets.toml"
SUMS = "SHA256SUMS"

Form = Literal["full", "slim", "onedir"]
FORMS: tuple[Form, ...] = ("full", "slim", "onedir")

_DIGEST = r"^[^@\s]+@sha256:[0-9a-f]{64}$"
_ARCHES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
_SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One platform. `minimum` is a system and its oldest version: `glibc 2.28`."""

    name: str
    os: Literal["linux", "macos", "windows"]
    arch: Literal["x64", "arm64"]
    runner: str
    python_platform: str
    minimum: str
    archive: Literal["tar.gz", "zip"]
    container: Annotated[str, msgspec.Meta(pattern=_DIGEST)] | None = None
    clean: Annotated[str, msgspec.Meta(pattern=_DIGEST)] | None = None

    @property
    def exe(self) -> str:
        return "cortex-embed.exe" if self.os == "windows" else "cortex-embed"

    @property
    def minimum_version(self) -> tuple[int, ...]:
        return tuple(int(part) for part in self.minimum.split()[-1].split("."))

    def asset(self, form: Form) -> str:
        """The archive's file name. Without a version: `releases/latest/download/NAME` is stable."""
        infix = "" if form == "full" else f"{form}-"
        return f"cortex-embed-{infix}{self.name}.{self.archive}"

    @property
    def sbom(self) -> str:
        return f"cortex-embed-{self.name}.cdx.json"

    @property
    def assets(self) -> tuple[str, ...]:
        """Every file of a release that is this target's own."""
        return (*(self.asset(form) for form in FORMS), self.sbom)


class Release(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What holds for all targets. `repository` is `owner/name`."""

    repository: Annotated[str, msgspec.Meta(pattern=r"^[\w.-]+/[\w.-]+$")]
    python: Annotated[str, msgspec.Meta(pattern=r"^3\.\d+$")]
    model: str

    @property
    def latest(self) -> str:
        """The address under which the newest release's assets are."""
        return f"https://github.com/{self.repository}/releases/latest/download"

    def tagged(self, version: str) -> str:
        return f"https://github.com/{self.repository}/releases/download/v{version}"


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    release: Release
    targets: list[Target] = msgspec.field(name="target")

    def find(self, name: str) -> Target:
        """Raises ValueError, with the names that there are."""
        for target in self.targets:
            if target.name == name:
                return target
        names = ", ".join(target.name for target in self.targets)
        raise ValueError(f"{name!r} is no target of {TABLE.name}. There are: {names}.")

    @property
    def matrix(self) -> dict[str, list[dict[str, str]]]:
        """GitHub's `strategy.matrix`: an empty `container` means the runner itself."""
        return {
            "include": [
                {
                    "target": target.name,
                    "runner": target.runner,
                    "container": target.container or "",
                    "clean": target.clean or "",
                    "python": self.release.python,
                    "exe": target.exe,
                    "archive": target.archive,
                    "sbom": target.sbom,
                }
                for target in self.targets
            ]
        }

    def downloads(self) -> str:
        """README's table: one row a target."""
        lines = ["| system | full: one file, model inside | slim: no model | directory | needs |"]
        lines.append("|---|---|---|---|---|")
        systems = {"linux": "Linux", "macos": "macOS", "windows": "Windows"}
        for target in self.targets:
            links = (
                f"[{target.archive}]({self.release.latest}/{target.asset(form)})" for form in FORMS
            )
            system = f"{systems[target.os]} {target.arch}"
            lines.append(f"| {system} | {' | '.join(links)} | {target.minimum} |")
        return "\n".join(lines)


def load(path: Path = TABLE) -> Table:
    """Raises ValueError, naming the field, for a table that is not as it must be."""
    try:
        table = msgspec.toml.decode(path.read_bytes(), type=Table)
    except msgspec.DecodeError as wrong:
        raise ValueError(f"{path}: {wrong}") from wrong
    for target in table.targets:
        if target.name != f"{target.os}-{target.arch}":
            raise ValueError(f"{path}: {target.name!r} must be named {target.os}-{target.arch}.")
        if {target.os == "linux"} != {bool(target.container), bool(target.clean)}:
            raise ValueError(
                f"{path}: {target.name}: Linux, and only Linux, has container and clean."
            )
    if len({target.name for target in table.targets}) != len(table.targets):
        raise ValueError(f"{path}: two targets have one name.")
    return table


def here(table: Table) -> Target:
    """The target that this Python runs on. Raises ValueError where a release has none for it."""
    system = _SYSTEMS.get(sys.platform, sys.platform)
    machine = platform.machine().lower()
    return table.find(f"{system}-{_ARCHES.get(machine, machine)}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Print what the table of targets says.")
    parser.add_argument("what", choices=("matrix", "here"))
    args = parser.parse_args(arguments)
    table = load()
    print(json.dumps(table.matrix) if args.what == "matrix" else here(table).name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
