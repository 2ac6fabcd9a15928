"""Write a directory so that it appears complete or not at all."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from cortex_embed.errors import OutputError
from cortex_embed.models.artifact import reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """An empty sibling directory of `out`, removed at the end whatever happens.

    A sibling, so that moving from it is a rename. An OSError inside (full disk, no permission)
    becomes OutputError, and so does an `out` that cannot be a directory we write: before any
    work is done.
    """
    part = out.parent / f".{out.name}.{os.getpid()}.part"
    try:
        if out.exists() and not (out.is_dir() and os.access(out, os.W_OK)):
            raise OutputError(
                f"{out} is {'not writable' if out.is_dir() else 'a file, not a directory'}. "
                "Name another directory with --out."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(part, ignore_errors=True)  # a killed process had the same number
        part.mkdir()  # not mkdtemp: its mode 0700 would stay with what we publish
        yield part
    except OSError as why:
        raise OutputError(
            f"{out} cannot be written: {reason(why)}"
            f"{f' ({why.filename})' if why.filename else ''}. "
            "Free some space, or name a directory that you may write with --out."
        ) from why
    finally:
        shutil.rmtree(part, ignore_errors=True)


def replace_directory(new: Path, out: Path, *, marker: str) -> None:
    """Put `new` in the place of `out`, which may exist only if it is empty or holds `marker`.

    Raises OutputError rather than removing a directory that is not ours, OSError otherwise.
    """
    old = new.with_name(new.name + ".old")
    if out.exists():
        if any(out.iterdir()) and not (out / marker).is_file():
            raise OutputError(
                f"{out} holds other files (no {marker}): it is not replaced. "
                "Name another directory with --out."
            )
        out.rename(old)
    try:
        new.rename(out)
    except OSError:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


def exit_on_sigterm() -> None:
    """Let SIGTERM unwind like Ctrl-C, so that nothing half-written stays."""

    def leave(number: int, _frame: object) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, leave)
