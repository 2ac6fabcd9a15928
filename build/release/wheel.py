"""The Python package for PyPI: wheel and sdist, of which the second builds the first.

    python -m release.wheel [--out dist/wheel]

A wheel is the package without a model: what is asked for is downloaded by name. It carries
OpenAI's vocabulary (build/fetch_vocabulary.py), as every release asset does, and the native
kernels of every target (build/compile_kernels.py), so that one wheel is for all of them. It must
never hold a file that the package has not, nor leave one out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import compile_kernels
import fetch_vocabulary
import source_date
import targets
from cortex_embed import __version__
from cortex_embed.errors import OutputError
from cortex_embed.models.store import EMBEDDED_DIR
from cortex_embed.providers import cl100k
from release import ReleaseError
from staging import exit_on_sigterm, staging

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parents[2]
STEM = f"cortex_embed-{__version__}"
WHEEL = f"{STEM}-py3-none-any.whl"
SDIST = f"{STEM}.tar.gz"


def make(out: Path, root: Path = ROOT) -> list[Path]:
    """Wheel and sdist of the tree `root` in `out`; those of other versions there are removed.

    Raises ReleaseError for a wheel that is not what it must be, OutputError, ValueError.
    """
    app = root / "app"
    if not fetch_vocabulary.is_intact(app / cl100k.FILE.relative_to(ROOT / "app")):
        raise ReleaseError(
            f"{cl100k.FILE.name} is missing or damaged: token ids that LangChain sends would be "
            f"refused. `python build/fetch_vocabulary.py --out {cl100k.FILE.parent}` fetches it."
        )
    refuse_other_kernels(app / compile_kernels.KERNELS.relative_to(ROOT / "app"))
    with staging(out) as part:
        build(root, part, "sdist", "wheel")
        wheel, sdist = part / WHEEL, part / SDIST
        complete(wheel, app)
        rebuilt = part / "rebuilt"
        with tarfile.open(sdist) as tar:
            tar.extractall(rebuilt, filter="data")
        build(rebuilt / STEM, rebuilt, "wheel")
        if (rebuilt / WHEEL).read_bytes() != wheel.read_bytes():
            raise ReleaseError(f"{SDIST} builds another {WHEEL} than this tree does.")
        out.mkdir(parents=True, exist_ok=True)
        for old in (*out.glob("cortex_embed-*.whl"), *out.glob("cortex_embed-*.tar.gz")):
            old.unlink()
        return [path.replace(out / path.name) for path in (wheel, sdist)]


def refuse_other_kernels(kernels: Path) -> None:
    """Raises ReleaseError unless `kernels` has every target's library, of these very sources."""
    every = targets.load().targets
    try:
        old = [target.name for target in every if not compile_kernels.is_current(target, kernels)]
    except compile_kernels.KernelsError as why:
        raise ReleaseError(str(why)) from why
    if old:
        raise ReleaseError(
            f"the kernels of {', '.join(old)} are missing or not of this tree's sources. "
            "`python build/compile_kernels.py --all --if-changed` compiles them."
        )


def build(root: Path, out: Path, *kinds: str) -> None:
    """Build `kinds` of the tree `root` into `out`. Raises ReleaseError, ValueError."""
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(out)]
    for kind in kinds:
        command += ["--target", kind]
    environment = os.environ | {source_date.VARIABLE: str(source_date.epoch())}
    done = subprocess.run(
        command, cwd=root, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise ReleaseError(f"hatchling cannot build {' and '.join(kinds)}:\n{done.stderr}")


def complete(wheel: Path, app: Path) -> None:
    """Hold `wheel` to the package's files below `app`: all of them, nothing else but metadata.

    Raises ReleaseError with what is missing and what is too much.
    """
    with zipfile.ZipFile(wheel) as archive:
        found = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = package_files(app)
    if found != expected:
        missing, more = sorted(expected - found), sorted(found - expected)
        raise ReleaseError(f"{wheel.name} lacks {missing} and has {more} too much.")


def package_files(app: Path) -> set[str]:
    """What is to be installed: all but an embedded model, and notes that tools keep for themselves.

    Of libraries only those of the table's targets.
    """
    package = app / "cortex_embed"
    left_out = {"__pycache__", EMBEDDED_DIR.name, compile_kernels.LIB.name}
    libraries = package / compile_kernels.LIB.relative_to(ROOT / "app" / "cortex_embed")
    found = [libraries / compile_kernels.library_name(t) for t in targets.load().targets]
    found += [
        path
        for path in package.rglob("*")
        if path.is_file() and left_out.isdisjoint(path.relative_to(package).parts)
    ]
    return {path.relative_to(app).as_posix() for path in found}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="release.wheel", description="Make wheel and sdist.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "wheel", metavar="DIR")
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        made = make(args.out)
    except (ReleaseError, OutputError, ValueError) as why:
        print(f"error: {why}", file=sys.stderr)
        return 1
    for path in made:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
