"""How a service manager starts this very program, today and after an upgrade.

It must never name a path that goes away by itself: a temporary directory, or a version's own
directory where a link outlives it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from cortex_embed.errors import UsageError

_TEMPORARY = ("/tmp", "/var/tmp", "/private/tmp", "/dev/shm", "/run")  # noqa: S108 - to refuse them


def program() -> tuple[str, ...]:
    """The words that start this program from any directory."""
    if not getattr(sys, "frozen", False):
        # Not resolved: a virtual environment is known by the link to its Python.
        return (str(Path(sys.executable).absolute()), "-m", "cortex_embed")
    exe = Path(sys.executable).resolve()
    # Package managers (Homebrew) keep a link that stays and a directory a version that goes.
    found = shutil.which("cortex-embed")
    if found is not None and Path(found).resolve() == exe:
        exe = Path(found).absolute()
    return (str(exe),)


def passing(words: tuple[str, ...]) -> str:
    """Why these words will not start the program for long; empty if nothing speaks against them."""
    import tempfile

    place = Path(words[0]).parent.resolve()
    for one in (tempfile.gettempdir(), *_TEMPORARY):
        if place.is_relative_to(Path(one).resolve()):
            return (
                f"{words[0]} lies in {one}, which is emptied by the system. Move the program to a "
                "place that stays (~/.local/bin, /usr/local/bin), and run it from there."
            )
    return ""


def must_start(words: tuple[str, ...]) -> None:
    """Try them as a service manager will: elsewhere, without this shell's PYTHON variables.

    Raises UsageError.
    """
    from cortex_embed.config import child_environment

    variables = child_environment({})
    plain = {name: value for name, value in variables.items() if not name.startswith("PYTHON")}
    command = [*words, "--version"]
    done = subprocess.run(
        command,
        cwd=Path(words[0]).anchor,
        env=plain,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise UsageError(
            f"`{' '.join(command)}` does not start outside this shell: "
            f"{done.stderr.strip() or f'exit code {done.returncode}'}. Install the package into "
            "that environment, or use the one-file program."
        )
