"""`models pull | import | remove` as a person calls them, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed import cli
from cortex_embed.models import store
from tests.hub import Hub, catalogue, repository, write_repository

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "data"
    monkeypatch.setattr(store, "data_dir", lambda: place)
    monkeypatch.setattr(store, "EMBEDDED_DIR", tmp_path / "embedded")
    monkeypatch.setenv("CORTEX_EMBED_OFFLINE", "1")
    return place


def run(*arguments: str, code: int = 0) -> None:
    assert cli.run(["models", *arguments]) == code


def test_import_then_path_then_remove(
    data: Path, tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    run("import", str(tiny_mean.directory), "--id", "mine")
    run("path", "mine")
    assert capsys.readouterr().out.splitlines()[-1] == str(data / "mine")
    size = sum(path.stat().st_size for path in (data / "mine").iterdir())
    run("remove", "mine")
    assert capsys.readouterr().out == f"Removed mine: {size / 1e6:,.1f} MB freed.\n"
    assert list(data.rglob("*")) == []
    run("remove", "mine", code=2)


def test_what_is_not_in_the_data_directory_is_not_removed(
    data: Path, tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    tiny_mean.directory.exists()
    (tmp_path / "embedded").symlink_to(tiny_mean.directory)
    run("remove", tiny_mean.spec.id, code=2)
    assert "not ours to remove" in capsys.readouterr().err
    monkeypatch.setattr(store, "EMBEDDED_DIR", tmp_path / "none")
    run("remove", tiny_mean.spec.id, "--model-dir", str(tiny_mean.directory), code=2)
    assert "not ours to remove" in capsys.readouterr().err
    assert tiny_mean.graph.exists()
    assert not data.exists()


@pytest.mark.parametrize("what", ["../data/mine", "/etc", "..", "mine/../mine"])
def test_a_path_is_no_name_to_remove(data: Path, tiny_mean: Artifact, what: str) -> None:
    run("import", str(tiny_mean.directory), "--id", "mine")
    assert cli.run(["models", "remove", what]) != 0
    assert (data / "mine" / "manifest.json").exists()


def test_a_damaged_and_an_unfinished_model_can_be_removed(
    data: Path, tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    run("import", str(tiny_mean.directory), "--id", "mine")
    (data / "mine" / "manifest.json").write_text("{")
    run("remove", "mine")
    part = data / ".partial" / "bge-small-en-v1.5@5c38ec7c405e" / "model.onnx.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1_000_000))
    run("remove", "bge-small")
    assert "Removed bge-small-en-v1.5: 1.0 MB freed." in capsys.readouterr().out
    assert list(data.rglob("*")) == []


def test_pull_of_what_is_here_already(
    data: Path, tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pull", tiny_mean.spec.id, "--model-dir", str(tiny_mean.directory))
    assert "is here already" in capsys.readouterr().out
    assert not data.exists()


def test_pull_of_what_nobody_knows_or_may_have(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("pull", "nonsense", code=2)
    assert "'nonsense'" in capsys.readouterr().err
    run("pull", "codebert-base", code=10)
    assert "pickled weights" in capsys.readouterr().err
    run("pull", "embeddinggemma", code=10)
    assert "--accept-terms" in capsys.readouterr().err
    run("pull", "bge-small", code=10)
    assert "--offline" in capsys.readouterr().err
    assert not list(data.rglob("*"))


def test_a_directory_that_was_published_becomes_ours(data: Path, tmp_path: Path) -> None:
    hub = Hub.__new__(Hub)
    hub.repositories = {"cortex-embed/tiny": repository()}
    own = catalogue(tmp_path / "mine.toml", hub)
    source = write_repository(tmp_path / "tiny-hub", repository())
    run("import", str(source), "--catalogue", str(own))
    run("pull", "tiny-hub", "--catalogue", str(own))  # the same bytes: nothing to fetch
    assert store.locate("th").directory == data / "tiny-hub"
