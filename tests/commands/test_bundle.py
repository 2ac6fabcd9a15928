"""One file of the slim executable and a model. That it runs is `nox -s smoke`'s to show."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortex_embed.cli import run
from cortex_embed.models.artifact import Artifact
from cortex_embed.onefile import blob, pkg
from cortex_embed.onefile.start import MODEL, RUNTIME
from tests.onefile.conftest import Make, executable

__all__ = ["executable"]


def test_the_model_is_in_it_byte_by_byte(
    executable: Make, tiny_mean: Artifact, tmp_path: Path
) -> None:
    slim = executable(blobs={RUNTIME: {"a.so": b"lib"}})
    before = slim.read_bytes()
    out = tmp_path / "my own"
    model = ["--model", str(tiny_mean.directory)]
    assert run(["bundle", *model, "--from", str(slim), "-o", str(out)]) == 0
    assert slim.read_bytes() == before
    assert out.stat().st_mode & 0o111
    raw = out.read_bytes()
    with out.open("rb") as file:
        archive = pkg.read(file)
        assert set(archive.blobs) == {RUNTIME, MODEL}
        index = blob.read_index(file, *archive.blobs[MODEL])
    for name, entry in index.files.items():
        stored = raw[entry.offset : entry.offset + entry.size]
        assert stored == (tiny_mean.directory / name).read_bytes()
    assert raw[40:48] == bytes(8)
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("kind", ["text", "full", "no runtime", "missing"])
def test_a_wrong_start_is_refused(
    executable: Make, tiny_mean: Artifact, tmp_path: Path, kind: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    if kind == "text":
        slim = tmp_path / "text"
        slim.write_text("hello", encoding="utf-8")
    elif kind == "missing":
        slim = tmp_path / "missing"
    else:
        blobs = {MODEL: {"m": b"1"}} | ({RUNTIME: {"a": b"1"}} if kind == "full" else {})
        slim = executable(blobs=blobs)
    out = tmp_path / "out"
    given = ["bundle", "--model", str(tiny_mean.directory), "--from", str(slim), "-o", str(out)]
    assert run(given) == (6 if kind == "missing" else 2)
    assert str(slim) in capsys.readouterr().err
    assert not out.exists()


def test_a_damaged_model_is_refused(
    executable: Make, tiny_mean: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for path in tiny_mean.directory.iterdir():
        (model / path.name).write_bytes(path.read_bytes())
    raw = bytearray((model / "tokenizer.json").read_bytes())
    raw[5] ^= 1
    (model / "tokenizer.json").write_bytes(raw)
    slim = executable(blobs={RUNTIME: {"a": b"1"}})
    out = tmp_path / "out"
    assert run(["bundle", "--model", str(model), "--from", str(slim), "-o", str(out)]) == 3
    assert "tokenizer.json" in capsys.readouterr().err
    assert not out.exists()


def test_from_source_it_asks_for_the_slim_file(
    tiny_mean: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["bundle", "--model", str(tiny_mean.directory), "-o", str(tmp_path / "x")]) == 2
    assert "--from" in capsys.readouterr().err
