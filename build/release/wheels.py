"""Is there a locked wheel of everything for every target, and for which oldest system?

    python -m release.wheels [--work dist/floors]

For each target and each Python the installer resolves the locks as on that platform, with hashes
and without sources. For the Python that is frozen, the table's `minimum` must be what the wheels
of a bundle ask for, by their tags and by the libraries in them: below it an asset would not
start, above it the promise is needlessly narrow. It must never install anything that is run.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.utils import canonicalize_name, parse_wheel_filename

import targets
from platform_floor import Floor, Version, dotted, floor

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from targets import Target

ROOT = Path(__file__).resolve().parent.parent.parent
PYTHONS = ("3.11", "3.12", "3.13")
RUNTIME = ROOT / "requirements" / "runtime.lock"
FREEZE = ROOT / "requirements" / "freeze.lock"
RELEASE = ROOT / "requirements" / "release.lock"
# Of freeze.lock a bundle holds only this, its bootloader, beside what runtime.lock names.
BOOTLOADER = "pyinstaller"
# Newer than any system: so that uv lists every wheel, and not only those that the table allows.
_NEWEST_GLIBC = "manylinux_2_40"  # the newest that uv knows
_NEWEST_MACOS = "99.0"
# https://peps.python.org/pep-0600/#legacy-manylinux-tags
_LEGACY = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}

Wheels = dict[str, list[str]]
"""File names of the wheels that would do, by package."""


@dataclass(frozen=True, slots=True)
class Demand:
    """The oldest system that something runs on, and what says so."""

    version: Version
    by: str

    def __str__(self) -> str:
        return f"{dotted(self.version)} ({self.by})"


class NoWheelError(Exception):
    """Target, Python, and the package that has no wheel there."""


def installer(target: Target, *command: str, platform: str = "", macos: str = "") -> str:
    """stdout of uv for `target`, at the table's minimum or what is given instead.

    Raises CalledProcessError.
    """
    environment = dict(os.environ)
    if target.os == "macos":
        environment["MACOSX_DEPLOYMENT_TARGET"] = macos or dotted(target.minimum_version)
    command += ("--python-platform", platform or target.python_platform)
    return subprocess.run(
        [sys.executable, "-m", "uv", "pip", *command],
        check=True, capture_output=True, text=True, encoding="utf-8", env=environment,
    ).stdout  # fmt: skip


def available(target: Target, python: str, lock: Path) -> Wheels:
    """Every wheel that uv would take on some version of `target`'s system, by package.

    Raises NoWheelError, with uv's words, and for a file whose hash is not in the lock.
    """
    newest = re.sub(r"manylinux_\w+$", _NEWEST_GLIBC, target.python_platform)
    try:
        text = installer(
            target, "compile", "--format", "pylock.toml", "--no-deps", "--quiet",
            "--only-binary", ":all:", "--python-version", python, str(lock),
            platform=newest, macos=_NEWEST_MACOS,
        )  # fmt: skip
    except subprocess.CalledProcessError as failed:
        raise NoWheelError(f"{target.name}, Python {python}: {failed.stderr.strip()}") from failed
    return wheels_of(text, locked_hashes(lock), f"{target.name}, Python {python}")


def wheels_of(pylock: str, locked: Mapping[str, set[str]], where: str) -> Wheels:
    """File names by package from a PEP 751 lock. Raises NoWheelError for what is not locked."""
    found: Wheels = {}
    for package in tomllib.loads(pylock)["packages"]:
        name = canonicalize_name(package["name"])
        wheels = [
            wheel.get("name") or str(wheel["url"]).rpartition("/")[2]
            for wheel in package.get("wheels", ())
            if wheel["hashes"]["sha256"] in locked.get(name, ())
        ]
        if not wheels:
            raise NoWheelError(f"{where}: no wheel of {name} {package['version']} is in the lock.")
        found[name] = wheels
    return found


def locked_hashes(lock: Path) -> dict[str, set[str]]:
    """SHA-256 by package, from a requirements file with hashes."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in lock.read_text(encoding="utf-8").splitlines():
        if begin := re.match(r"([A-Za-z0-9._-]+)==", line):
            name = canonicalize_name(begin[1])
        for value in re.findall(r"--hash=sha256:([0-9a-f]{64})", line):
            found.setdefault(name, set()).add(value)
    return found


def demand_of(file: str) -> Version | None:
    """The oldest system of a wheel, by its tags; None for one that any system takes.

    A wheel of several tags runs where any of them does. Raises ValueError for an unknown tag.
    """
    versions: set[Version | None] = set()
    for tag in parse_wheel_filename(file)[3]:
        if found := re.match(r"(?:manylinux|macosx)_(\d+)_(\d+)_", tag.platform):
            versions.add((int(found[1]), int(found[2])))
        elif (old := tag.platform.partition("_")[0]) in _LEGACY:
            versions.add(_LEGACY[old])
        elif tag.platform == "any" or tag.platform.startswith("win"):
            versions.add(None)
        else:
            raise ValueError(f"{file}: {tag.platform} is a tag that we do not know.")
    return None if None in versions else min(v for v in versions if v)


def is_pure(file: str) -> bool:
    return all(tag.platform == "any" for tag in parse_wheel_filename(file)[3])


def by_tags(wheels: Wheels, bundled: Iterable[str]) -> Demand | None:
    """The highest of the packages' lowest demands; None where no tag states a version.

    A pure-Python wheel beside compiled ones does not count: a bundle is made without it.
    """
    lowest: list[tuple[Version, str]] = []
    for name in bundled:
        compiled = [file for file in wheels.get(name, ()) if not is_pure(file)]
        stated = [(version, file) for file in compiled if (version := demand_of(file))]
        lowest += [min(stated)] if stated else []
    if not lowest:
        return None
    highest = max(lowest)[0]
    return Demand(
        highest, ", ".join(sorted(file for version, file in lowest if version == highest))
    )


def by_libraries(target: Target, python: str, tags: Demand, work: Path) -> Floor:
    """What the libraries in these wheels ask for: a tag may promise more than they keep.

    Raises CalledProcessError, ValueError.
    """
    place = work / target.name
    shutil.rmtree(place, ignore_errors=True)
    command = [*install(python, place), "-r", str(RUNTIME)]
    installer(target, *command, macos=dotted(tags.version))
    return floor(place, target)


def install(python: str, place: Path) -> tuple[str, ...]:
    return (
        "install", "--quiet", "--only-binary", ":all:", "--require-hashes",
        "--python", sys.executable, "--python-version", python, "--target", str(place),
    )  # fmt: skip


def resolves(target: Target, python: str, work: Path) -> str | None:
    """What the installer says against both locks at the table's minimum; None if nothing."""
    command = [*install(python, work / "none"), "--dry-run", "-r", str(RUNTIME), "-r", str(FREEZE)]
    try:
        installer(target, *command)
    except subprocess.CalledProcessError as failed:
        return str(failed.stderr.strip())
    return None


def fallbacks(found: Mapping[str, Wheels]) -> list[str]:
    """Packages that are compiled for one target and only pure Python for another.

    The bundle leaves their Python stand-ins out (build/freeze.py), so it would not run.
    """
    compiled = {
        name
        for wheels in found.values()
        for name, files in wheels.items()
        if not all(map(is_pure, files))
    }
    return [
        f"{where}: {name} has only a pure-Python wheel here."
        for where, wheels in found.items()
        for name, files in wheels.items()
        if name in compiled and all(map(is_pure, files))
    ]


def verdict(target: Target, needed: Demand) -> str | None:
    """What is wrong with the table's row, given what the wheels need; None if nothing."""
    system, minimum = target.minimum.split()[0], target.minimum_version
    if target.os == "linux" and not target.python_platform.endswith(
        f"-manylinux_{'_'.join(map(str, minimum))}"
    ):
        return f"{target.name}: {target.python_platform} is not {target.minimum}."
    if needed.version == minimum:
        return None
    too_old = needed.version > minimum
    why = "an asset would not start there" if too_old else "the promise is needlessly narrow"
    return (
        f"{target.name}: {targets.TABLE.name} says {target.minimum}, but its wheels need "
        f"{system} {needed}: {why}."
    )


def judge(target: Target, python: str, frozen: bool, work: Path) -> tuple[Wheels, list[str]]:
    """Print a target's row; its wheels, and what is wrong. Raises NoWheelError, ValueError."""
    where = f"{target.name}, Python {python}"
    wheels = available(target, python, FREEZE)
    demand = by_tags(wheels, [*locked_hashes(RUNTIME), BOOTLOADER])
    problems = []
    if against := resolves(target, python, work):
        problems.append(f"{where}, {target.minimum}: {against}")
    elif demand and frozen:
        read = by_libraries(target, python, demand, work)
        if read.version > demand.version:
            reason = f"{read.reasons[0]} of {read.path.name}"
            demand = Demand(read.version, f"{reason}; {dotted(demand.version)} by tags")
    # Other Pythons need not need as much, but never more.
    if demand and (frozen or demand.version > target.minimum_version):
        problems += [wrong] if (wrong := verdict(target, demand)) else []
    says = f"{target.minimum.split()[0]} {demand}" if demand else "no tag states a version"
    compiled = sum(not all(map(is_pure, files)) for files in wheels.values())
    print(f"{target.name:<12} {python:<6} {len(wheels):>8} {compiled:>8}   {says}", flush=True)
    return wheels, problems


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prove the locks for every target.")
    parser.add_argument("--work", type=Path, default=ROOT / "dist" / "floors", metavar="DIR")
    args = parser.parse_args(arguments)
    table = targets.load()
    problems: list[str] = []
    print(f"{'target':<12} Python packages compiled   oldest system, by the wheels of a bundle")
    for python in PYTHONS:
        found: dict[str, Wheels] = {}
        for target in table.targets:
            where = f"{target.name}, Python {python}"
            try:
                found[where], wrong = judge(
                    target, python, python == table.release.python, args.work
                )
                problems += wrong
            except (NoWheelError, ValueError) as why:
                problems.append(str(why))
            except subprocess.CalledProcessError as failed:
                problems.append(f"{where}: {failed.stderr.strip()}")
        problems += fallbacks(found)
    for problem in problems:
        print(f"FAIL  {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
