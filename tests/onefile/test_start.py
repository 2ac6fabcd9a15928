"""Extension modules out of a blob: found, loaded, and only then unpacked."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from cortex_embed.errors import ModelFileError, UnpackError
from cortex_embed.onefile import blob, pkg, start
from tests.onefile.conftest import Make


@pytest.fixture
def finder(executable: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> start.Finder:
    """A finder for one real extension module under a name that nothing else has."""
    real = importlib.util.find_spec("msgspec._core")
    assert real is not None
    assert real.origin is not None
    path = executable(
        blobs={start.RUNTIME: {"pack/_core.so": Path(real.origin).read_bytes()}},
        modules={"pack._core": "pack/_core.so"},
    )
    monkeypatch.setenv("CORTEX_EMBED_UNPACK_DIR", str(tmp_path / "cache"))
    with path.open("rb") as file:
        return start.Finder(path, blob.read_index(file, *pkg.read(file).blobs[start.RUNTIME]))


def test_other_modules_are_left_alone_and_unpack_nothing(
    finder: start.Finder, tmp_path: Path
) -> None:
    assert finder.find_spec("json") is None
    assert finder.find_spec("pack") is None
    assert not (tmp_path / "cache").exists()


def test_a_module_is_found_in_the_cache(finder: start.Finder, tmp_path: Path) -> None:
    spec = finder.find_spec("pack._core")
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).is_relative_to(tmp_path / "cache")
    assert Path(spec.origin).read_bytes()[:4] == b"\x7fELF" or sys.platform != "linux"


def test_a_failed_unpacking_is_told_again(
    finder: start.Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "_MEIPASS", str(tmp_path / "taken"), raising=False)
    (tmp_path / "taken").write_text("", encoding="utf-8")
    (tmp_path / "cache").write_text("", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(UnpackError, match="CORTEX_EMBED_UNPACK_DIR"):
            finder.find_spec("pack._core")


def test_unpacking_before_it_is_asked_for(
    finder: start.Finder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "meta_path", [finder, *sys.meta_path])
    start.unpack()
    assert list((tmp_path / "cache").rglob("_core.so"))


def test_a_source_checkout_has_nothing_of_this() -> None:
    before = list(sys.meta_path)
    start.prepare()
    assert sys.meta_path == before
    assert start.model_dir() is None
    assert start.carried(start.VOCABULARIES, "cl100k_base.zlib") is None


def test_a_small_file_is_read_without_unpacking(
    executable: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = executable(blobs={start.VOCABULARIES: {"a": b"first", "b": b"second"}})
    monkeypatch.setattr(sys, "executable", str(path))
    with path.open("rb") as file:
        index = blob.read_index(file, *pkg.read(file).blobs[start.VOCABULARIES])
    monkeypatch.setattr(start, "_indices", lambda: {start.VOCABULARIES: index})
    assert start.carried(start.VOCABULARIES, "b") == b"second"
    assert start.carried(start.VOCABULARIES, "c") is None
    raw = bytearray(path.read_bytes())
    raw[index.files["b"].offset] ^= 1
    path.write_bytes(raw)
    with pytest.raises(ModelFileError, match="damaged"):
        start.carried(start.VOCABULARIES, "b")
