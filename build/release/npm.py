"""npm's packages: the wrapper `cortex-embed`, and one package a target with the executable.

    python -m release.npm --assets dist/release --out dist/npm [--this-target]

Node programs depend on the wrapper; its optional dependencies name every target's package, and
npm installs the one whose `os`, `cpu` and `libc` are the machine's (as esbuild and Biome do it:
no download of our own, no install script). Publish the targets' packages first, the wrapper
last: from then on they are asked for.

It must never pack an executable that is not the one in SHA256SUMS.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import targets
from cortex_embed import __version__
from cortex_embed.errors import OutputError
from cortex_embed.models.artifact import hash_file
from release import ReleaseError, archive, licences, sums
from staging import exit_on_sigterm, staging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from targets import Table, Target

NAME = "cortex-embed"
SCOPE = f"@{NAME}"
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ROOT / "build" / "npm"
LICENCES = ("LICENSE", licences.FILE)
_SYSTEMS = {"linux": "linux", "macos": "darwin", "windows": "win32"}
"""Node's `process.platform`; its `process.arch` is our `arch`."""
_VERSION = re.compile(r"(\d+\.\d+\.\d+)(?:(a|b|rc)(\d+))?")
_STAGES = {"a": "alpha", "b": "beta", "rc": "rc"}


def package_name(target: Target) -> str:
    return f"{SCOPE}/{target.name}"


def npm_version(version: str) -> str:
    """PEP 440's `1.0.0rc1` as semver.org's `1.0.0-rc.1`, which npm wants. Raises ReleaseError."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ReleaseError(
            f"{version!r} is no version for npm: it must be MAJOR.MINOR.PATCH, with aN, bN or rcN "
            "after it for one that comes before the release."
        )
    final, stage, number = match.groups()
    return f"{final}-{_STAGES[stage]}.{number}" if stage else str(final)


def tarball(package: str, version: str) -> str:
    """What `npm pack` calls it."""
    return f"{package.removeprefix('@').replace('/', '-')}-{version}.tgz"


def wrapper_manifest(table: Table, version: str) -> dict[str, Any]:
    """package.json of the wrapper."""
    return {
        "name": NAME,
        "description": "Text in, vectors out: a fast local embedding server, as a dependency.",
        **_common(table, version),
        "keywords": ["embeddings", "onnx", "openai", "sentence-transformers", "sidecar"],
        "type": "commonjs",
        "main": "index.js",
        "types": "index.d.ts",
        "bin": {NAME: f"bin/{NAME}.js"},
        "files": ["bin", "binary.js", "index.js", "index.d.ts"],
        "engines": {"node": ">=18"},
        "optionalDependencies": {package_name(target): version for target in table.targets},
    }


def platform_manifest(table: Table, target: Target, version: str) -> dict[str, Any]:
    """package.json of the package with the executable for `target`."""
    return {
        "name": package_name(target),
        "description": f"The executable of {NAME} for {target.name}.",
        **_common(table, version),
        "os": [_SYSTEMS[target.os]],
        "cpu": [target.arch],
        **({"libc": ["glibc"]} if target.os == "linux" else {}),
        "files": ["bin", *LICENCES],
        # For Yarn's Plug'n'Play: nothing can be started from inside a zip archive.
        "preferUnplugged": True,
    }


def _common(table: Table, version: str) -> dict[str, Any]:
    """npm holds `repository` to where the provenance says that a package was made.

    A scope's packages are private unless they say otherwise, and what comes before a release must
    not be the latest.
    """
    early = {"tag": "next"} if "-" in version else {}
    address = f"https://github.com/{table.release.repository}"
    return {
        "version": version,
        "license": "MIT",
        "repository": {"type": "git", "url": f"git+{address}.git"},
        "homepage": f"{address}#readme",
        "bugs": f"{address}/issues",
        "publishConfig": {"access": "public", **early},
    }


def make(
    table: Table, chosen: Sequence[Target], assets: Path, out: Path, version: str = __version__
) -> list[Path]:
    """Tarballs of the packages of `chosen` and, last, of the wrapper, in `out`.

    Tarballs of another version that are there are removed. Raises ReleaseError, OutputError.
    """
    version = npm_version(version)
    with staging(out) as part:
        staged = []
        for target in chosen:
            asset = verified(assets, target.asset("full"))
            directory = part / target.name
            directory.mkdir()
            unpack(asset, target, directory)
            _write(directory, platform_manifest(table, target, version), _readme_of(target))
            staged.append(directory)
        staged.append(part / NAME)
        shutil.copytree(SOURCES, staged[-1])
        shutil.copyfile(ROOT / "LICENSE", staged[-1] / "LICENSE")
        _write(staged[-1], wrapper_manifest(table, version))
        packed = [pack(directory, part) for directory in staged]
        out.mkdir(parents=True, exist_ok=True)
        for old in out.glob(f"{NAME}-*.tgz"):
            old.unlink()
        return [path.replace(out / path.name) for path in packed]


def _readme_of(target: Target) -> str:
    return (
        f"# {package_name(target)}\n\nThe executable of `{NAME}` for {target.name}, which needs "
        f"{target.minimum} or newer. Depend on `{NAME}`, which depends on this.\n"
    )


def _write(directory: Path, manifest: dict[str, Any], readme: str | None = None) -> None:
    text = json.dumps(manifest, indent=2) + "\n"
    (directory / "package.json").write_text(text, encoding="utf-8", newline="\n")
    if readme is not None:
        (directory / "README.md").write_text(readme, encoding="utf-8", newline="\n")


def verified(assets: Path, name: str) -> Path:
    """The asset `name`, held to SHA256SUMS. Raises ReleaseError for one that is not as it says."""
    stated, wrong = sums.read(assets)
    path = assets / name
    if wrong or not path.is_file():
        raise ReleaseError(
            f"{' '.join(wrong) or f'{path} is missing.'} `nox -s package` makes this machine's "
            "assets (--this-target packs those alone); a release has those of all targets."
        )
    if name not in stated:
        raise ReleaseError(
            f"{name} is in {assets}, but not in {targets.SUMS}. Make the assets again."
        )
    found = hash_file(path)
    if found != stated[name]:
        raise ReleaseError(
            f"{path} has SHA-256 {found}, {targets.SUMS} says {stated[name]}. Make or fetch the "
            "assets again."
        )
    return path


def unpack(path: Path, target: Target, into: Path) -> None:
    """Executable and licences of the archive `path`, as a package has them. Raises ReleaseError."""
    places = {target.exe: f"bin/{target.exe}"} | {name: name for name in LICENCES}
    (into / "bin").mkdir()
    with archive.reading(path) as reader:
        for name, place in places.items():
            member = f"{archive.stem(path.name)}/{name}"
            try:
                with reader.open(member) as source, (into / place).open("wb") as copy:
                    shutil.copyfileobj(source, copy)
            except KeyError:
                raise ReleaseError(f"{path} has no {member}.") from None
    (into / "bin" / target.exe).chmod(0o755)


def pack(directory: Path, out: Path) -> Path:
    """`npm pack`, which gives the same bytes for the same files. Raises ReleaseError."""
    npm = shutil.which("npm")
    if npm is None:
        raise ReleaseError("npm is not on the PATH: install Node.js, which brings it.")
    environment = os.environ | {
        # Nothing of this machine's settings, and nothing left on it.
        "npm_config_userconfig": str(out / "npmrc"),
        "npm_config_cache": str(out / "cache"),
        "npm_config_update_notifier": "false",
    }
    done = subprocess.run(
        [npm, "pack", "--ignore-scripts", "--json", "--pack-destination", str(out)],
        cwd=directory, env=environment, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    if done.returncode:
        raise ReleaseError(f"npm pack of {directory.name} failed:\n{done.stderr}")
    manifest = json.loads((directory / "package.json").read_text(encoding="utf-8"))
    made = out / tarball(manifest["name"], manifest["version"])
    if not made.is_file():
        raise ReleaseError(f"npm pack of {directory.name} made no {made.name}:\n{done.stdout}")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="release.npm", description="Make npm's packages.")
    parser.add_argument("--assets", type=Path, default=ROOT / "dist" / "release", metavar="DIR")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "npm", metavar="DIR")
    parser.add_argument(
        "--this-target", action="store_true", help="the executable of this machine only"
    )
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        table = targets.load()
        chosen = [targets.here(table)] if args.this_target else table.targets
        made = make(table, chosen, args.assets, args.out)
    except (ReleaseError, OutputError, ValueError) as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    for path in made:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    if args.this_target:
        print(f"Of the targets, {chosen[0].name} only: no release.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
