"""The first thing a one-file executable does: make its libraries and its model findable.

Python finds extension modules by directory; ours are in a blob that is unpacked once, so a
finder says where each one is. Unpacking happens at the first import that needs it, which
`--version` and `--help` never do. It must never shadow a module of another kind.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.onefile import blob, pkg

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from cortex_embed.onefile.blob import Index

RUNTIME = "runtime.blob"
MODEL = "model.blob"
VOCABULARIES = "vocabularies.blob"


class Finder:
    """Finds the extension modules of the runtime blob. Put first into `sys.meta_path`."""

    def __init__(self, executable: Path, index: Index) -> None:
        self._executable = executable
        self._index = index
        self._directory: Path | None = None
        self._unpacking = False

    def find_spec(
        self, name: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Where module `name` is, if it is one of ours. Raises UnpackError, ModelFileError."""
        file = self._index.modules.get(name)
        # What unpacking itself would like to import must do without: it is not there yet.
        if file is None or self._unpacking:
            return None
        if self._directory is None:
            self._directory = self.unpack()
        self._load_first(self._index.needs.get(name, ()))
        location = str(self._directory / file)
        spec = ModuleSpec(name, ExtensionFileLoader(name, location), origin=location)
        spec.has_location = True
        return spec

    def unpack(self) -> Path:
        """Where the files are, unpacked if need be. Raises UnpackError, ModelFileError."""
        self._unpacking = True
        try:
            from cortex_embed.onefile.unpack import unpacked

            self._directory = unpacked(self._executable, self._index, run=True)
        finally:
            self._unpacking = False
        return self._directory

    def _load_first(self, libraries: Sequence[str]) -> None:
        """The linker would look for them elsewhere; one that is loaded it finds by its name."""
        if libraries:
            import ctypes

            assert self._directory is not None  # noqa: S101 - unpacked by now; this is for mypy
            for library in libraries:
                ctypes.CDLL(str(self._directory / library))


@cache
def _indices() -> dict[str, Index]:
    """The blobs of this executable by name; empty outside one-file executables."""
    if not getattr(sys, "frozen", False):
        return {}
    with Path(sys.executable).open("rb") as file:
        found = pkg.read(file).blobs
        return {name: blob.read_index(file, *place) for name, place in found.items()}


def prepare() -> None:
    """Call once, before anything but the standard library is imported."""
    runtime = _indices().get(RUNTIME)
    if runtime is not None:
        sys.meta_path.insert(0, Finder(Path(sys.executable), runtime))


def unpack() -> None:
    """Unpack the libraries now: call before there are threads, of which a second would find none.

    Raises UnpackError, ModelFileError.
    """
    for finder in sys.meta_path:
        if isinstance(finder, Finder):
            finder.unpack()


@cache
def model_dir() -> Path | None:
    """The artifact directory that this executable carries; None if it carries none as a blob.

    Raises UnpackError, ModelFileError.
    """
    model = _indices().get(MODEL)
    if model is None:
        return None
    from cortex_embed.onefile.unpack import unpacked

    return unpacked(Path(sys.executable), model, run=False)


def carried(name: str, path: str) -> bytes | None:
    """File `path` of blob `name`, without unpacking it; None if this executable has none.

    Raises OSError, ModelFileError.
    """
    index = _indices().get(name)
    if index is None or path not in index.files:
        return None
    with Path(sys.executable).open("rb") as file:
        return blob.read(file, index.files[path])


def begin(command: str) -> None:
    """In a one-file program: end with the bootloader, and remove what killed ones left."""
    from threading import Timer

    from cortex_embed import litter
    from cortex_embed.processes import unpacked
    from cortex_embed.watch import Watch

    own = unpacked()
    if own is None:
        return
    unpack()
    if command != "serve":  # which has more to watch, and more to finish
        Watch().start()
    # A server looks once it has started; a short command has no such moment.
    later = Timer(1.0 if command in {"serve", "rpc"} else 0.0, litter.sweep, [own.parent])
    later.daemon = True
    later.start()
