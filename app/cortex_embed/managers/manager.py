"""What every service manager has in common: its files are marked as ours, its tool is run here.

It must never replace or remove a definition without the mark: somebody else wrote that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from cortex_embed.config import child_environment
from cortex_embed.errors import InstanceError, OutputError

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.managers.job import Job

MARK = "Written by `cortex-embed service install`"
DOCUMENTATION = "https://github.com/cortex-embed/cortex-embed"
# What the tools of Windows print is in the console's code page.
_ENCODING = "oem" if sys.platform == "win32" else "utf-8"


class Manager(Protocol):
    """One service manager, for this user or for the whole system."""

    name: str

    def definition(self, job: Job) -> bytes:
        """The definition of `job` as its file has it. Raises UsageError for what it cannot say."""

    @property
    def place(self) -> str:
        """Where the definition is kept, for people."""

    def check(self) -> None:
        """Raises InstanceError where the manager cannot be reached, before anything is written."""

    def installed(self) -> bytes | None:
        """The definition that is there, whoever wrote it. Raises OutputError."""

    def install(self, definition: bytes) -> None:
        """Put it there in place of ours, now and at each login or boot, and (re)start it.

        Raises InstanceError, OutputError.
        """

    def remove(self) -> None:
        """Stop it and take it away, whatever state it is in. Raises InstanceError, OutputError."""

    def state(self) -> tuple[bool, str]:
        """Whether it runs, and the manager's own word for how it is."""

    def hints(self) -> dict[str, str]:
        """What a person does next: a few words, and the command."""


def is_ours(definition: bytes) -> bool:
    """Whether `cortex-embed service` wrote it."""
    mark = MARK.encode()
    # schtasks prints UTF-16 or the console's code page, by its version.
    return mark in definition or mark in definition.replace(b"\0", b"")


def tool(*words: str) -> tuple[int, str]:
    """Run a manager's tool: its exit code and all that it said. Raises InstanceError."""
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            # Or a one-file program's libraries would be loaded into the system's tool.
            env=child_environment({"LC_ALL": "C"}),
            check=False,
        )
    except OSError as why:
        raise InstanceError(f"{words[0]} cannot be run: {why.strerror or why}.") from None
    return done.returncode, done.stdout.decode(_ENCODING, "replace").strip()


def must(*words: str) -> str:
    """As `tool`, but an exit code other than 0 is an InstanceError."""
    code, said = tool(*words)
    if code:
        raise InstanceError(f"`{' '.join(words)}` failed with exit code {code}: {said}")
    return said


def read(path: Path) -> bytes | None:
    """The file at `path`; None where there is none. Raises OutputError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        raise _refused(path, why) from None


def write(path: Path, content: bytes) -> None:
    """Make or replace `path` in one step, readable by all: no secret is in it.

    Raises OutputError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.chmod(0o644)
        draft.replace(path)
    except OSError as why:
        with suppress(OSError):
            draft.unlink()
        raise _refused(path, why) from None


def remove(path: Path) -> None:
    """Raises OutputError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as why:
        raise _refused(path, why) from None


def _refused(path: Path, why: OSError) -> OutputError:
    return OutputError(f"{path} cannot be used: {why.strerror or why}.")
