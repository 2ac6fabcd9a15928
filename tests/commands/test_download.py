"""Whether a model that is not here is downloaded; `tests/e2e/test_download.py` downloads some."""

from __future__ import annotations

from pathlib import Path

import pytest

from cortex_embed.commands import download
from cortex_embed.config import Settings
from cortex_embed.errors import DownloadError, ModelNotFoundError, NotInstalledError, UsageError
from cortex_embed.models import store
from cortex_embed.models.artifact import Artifact


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setattr(store, "EMBEDDED_DIR", tmp_path / "embedded")


def missing(model: str) -> NotInstalledError:
    return NotInstalledError("not here", model=model)


def test_what_is_here_is_not_fetched(tiny_mean: Artifact) -> None:
    settings = Settings(model=(str(tiny_mean.directory),), offline=True)
    (found,) = download.here(settings)
    assert found.artifact == tiny_mean
    assert download.planned(settings) == [tiny_mean.spec]


def test_the_default_of_a_slim_program_is_fetched() -> None:
    with pytest.raises(DownloadError, match=r"bge-small-en-v1\.5 is not on this machine") as caught:
        download.here(Settings(offline=True))
    assert caught.value.code == "download_offline"


def test_an_unknown_name_is_not() -> None:
    with pytest.raises(ModelNotFoundError):
        download.here(Settings(model=("nonsense",)))


@pytest.mark.parametrize(
    ("settings", "model", "code"),
    [
        (Settings(), "codebert-base", "download_unavailable"),
        (Settings(), "embeddinggemma-300m", "download_terms"),
        (Settings(precision="int8"), "bge-small-en-v1.5", "usage"),
    ],
)
def test_what_forbids_it_is_known_before(settings: Settings, model: str, code: str) -> None:
    with pytest.raises((DownloadError, UsageError)) as caught:
        download.downloadable(settings, missing(model))
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("settings", "model"),
    [
        (Settings(), "bge-small-en-v1.5"),
        (Settings(precision="auto"), "bge-small-en-v1.5"),
        (Settings(accept_terms=True, precision="int8"), "embeddinggemma-300m"),
    ],
)
def test_what_may_be_downloaded(settings: Settings, model: str) -> None:
    assert download.downloadable(settings, missing(model)).spec.id == model


def test_several_are_planned_before_anything_is_fetched(tiny_mean: Artifact) -> None:
    names = (str(tiny_mean.directory), "bge-m3", "gte-small")
    planned = download.planned(Settings(model=names))
    assert [spec.id for spec in planned] == ["tiny-mean", "bge-m3", "gte-small"]
    with pytest.raises(DownloadError) as caught:
        download.planned(Settings(model=(*names, "codebert-base")))
    assert caught.value.code == "download_unavailable"


@pytest.mark.parametrize("again", ["BGE-M3", "BAAI/bge-m3", "bge-m3"])
def test_one_model_by_two_names_is_refused_before_anything_is_fetched(again: str) -> None:
    with pytest.raises(UsageError, match="bge-m3 is named twice"):
        download.planned(Settings(model=("bge-m3", "gte-small", again)))
