"""The writing half of the store: a model's directory appears whole in the data directory, or not
at all, and goes as a whole.

What is not finished yet lies under `.partial`, by model and revision, where a killed process
leaves it for the next one. It must never touch a directory outside the data directory, nor
believe a file there that was not verified (`obtain` does that).
"""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cortex_embed.errors import UsageError
from cortex_embed.locking import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTIAL = ".partial"
_REVISION_SHOWN = 12
_PLAIN = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Place:
    """Where one model at one revision is made, and where it will be, under `root`."""

    root: Path
    model: str
    revision: str

    @property
    def final(self) -> Path:
        return self.root / self.model

    @property
    def staging(self) -> Path:
        shown = re.sub("[^0-9A-Za-z]", "-", self.revision)[:_REVISION_SHOWN]
        return self._beside(f"{self.model}@{shown}")

    @property
    def old(self) -> Path:
        """What was at `final` until it is removed."""
        return self._beside(f"{self.model}@old")

    @property
    def lock(self) -> Path:
        return self._beside(f"{self.model}.lock")

    def _beside(self, name: str) -> Path:
        return self.root / PARTIAL / name

    @contextmanager
    def locked(self, on_wait: Callable[[str], None]) -> Iterator[None]:
        """Be the only process that writes this model. Raises OSError.

        `on_wait` is told who is, if it is not us yet. What a killed process has left of a
        replacement is finished first. Nothing empty stays.
        """
        try:
            with held(self.lock, on_wait):
                if self.old.exists() and not self.final.exists():
                    self.old.rename(self.final)  # killed between the two renames
                shutil.rmtree(self.old, ignore_errors=True)
                try:
                    yield
                finally:
                    _remove_if_empty(self.staging)
        finally:
            _remove_if_empty(self.lock.parent)  # unless others are at work there

    def publish(self) -> None:
        """Put what was staged in its place, and remove what was there. Raises OSError."""
        if self.final.exists():
            self.final.rename(self.old)
        try:
            self.staging.rename(self.final)
        except OSError:
            if self.old.exists():
                self.old.rename(self.final)
            raise
        shutil.rmtree(self.old, ignore_errors=True)
        self.forget()

    def forget(self) -> None:
        """Remove what is staged of this model, at any revision."""
        for left in self.lock.parent.glob(f"{self.model}@*"):
            shutil.rmtree(left, ignore_errors=True)

    def remove(self) -> int:
        """Remove the model and what is staged of it; bytes freed. Raises OSError."""
        freed = sum(_size(directory) for directory in (self.final, *self.staged()))
        if self.final.exists():
            self.final.rename(self.old)  # gone at once, for whoever looks
        self.forget()
        return freed

    def staged(self) -> list[Path]:
        """Directories with what an interrupted attempt left of this model."""
        return [path for path in self.lock.parent.glob(f"{self.model}@*") if path.is_dir()]


def plain(model_id: str, way_out: str) -> str:
    """`model_id` if it can name a directory on every platform. Raises UsageError."""
    if not _PLAIN.fullmatch(model_id):
        raise UsageError(
            f"{model_id!r} cannot be a model's id in the store: lower-case letters, digits, dots, "
            f"dashes and underscores, at most 100. {way_out}"
        )
    return model_id


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` the content of `source`, without taking its space again where possible."""
    with suppress(FileNotFoundError):
        target.unlink()
    real = source.resolve()
    try:
        os.link(real, target)
    except OSError:  # another disk, or a file system without links
        part = target.with_name(f"{target.name}.part")
        shutil.copyfile(real, part)
        part.replace(target)


def _remove_if_empty(directory: Path) -> None:
    with suppress(OSError):
        directory.rmdir()


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
