"""A directory from elsewhere in the data directory: only as what it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import EmbedError, ModelFileError, UsageError
from cortex_embed.models.adopt import adopt
from cortex_embed.models.artifact import load_artifact
from cortex_embed.models.fingerprint import fingerprint
from tests.hub import Hub, catalogue, repository, write_repository

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact


def test_an_artifact_directory_is_copied_whole(tiny_mean: Artifact, tmp_path: Path) -> None:
    made = adopt(tiny_mean.directory, tmp_path / "data")
    made.verify()
    assert made.directory == tmp_path / "data" / "tiny-mean"
    assert made.manifest == tiny_mean.manifest
    assert not (tmp_path / "data" / ".partial").exists()
    with pytest.raises(UsageError, match="is there already"):
        adopt(tiny_mean.directory, tmp_path / "data")
    other = adopt(tiny_mean.directory, tmp_path / "data", model_id="other")
    assert other.spec.id == "other"
    assert fingerprint(other, "fp32") == fingerprint(made, "fp32")


def test_a_damaged_one_is_not(tiny_mean: Artifact, tmp_path: Path) -> None:
    made = adopt(tiny_mean.directory, tmp_path / "a")
    (made.directory / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json has 2 bytes"):
        adopt(made.directory, tmp_path / "b")
    assert list((tmp_path / "b").rglob("*")) == []


@pytest.mark.parametrize("external", [False, True])
def test_a_repository_is_put_in_order(tmp_path: Path, external: bool) -> None:
    source = write_repository(tmp_path / "My-Model", repository(external=external))
    before = sorted(source.rglob("*"))
    made = adopt(source, tmp_path / "data")
    made.verify()
    assert (made.spec.id, made.spec.pooling, made.is_own) == ("my-model", "mean", False)
    assert (made.directory / "model.onnx_data").exists() is external
    assert sorted(source.rglob("*")) == before
    assert load_artifact(made.directory) == made
    assert adopt(source, tmp_path / "data", model_id="mine").spec.id == "mine"


def test_what_a_graph_needs_must_be_there(tmp_path: Path) -> None:
    source = write_repository(tmp_path / "m", repository(external=True))
    (source / "onnx" / "model.onnx_data").unlink()
    with pytest.raises(ModelFileError, match=r"model\.onnx_data is missing"):
        adopt(source, tmp_path / "data")
    source = write_repository(tmp_path / "n", repository())
    (source / "tokenizer.json").unlink()
    with pytest.raises(ModelFileError, match=r"tokenizer\.json is missing"):
        adopt(source, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*"))


def test_the_name_of_the_catalogue_is_for_the_catalogues_files(tmp_path: Path) -> None:
    hub = Hub.__new__(Hub)
    hub.repositories = {"cortex-embed/tiny": repository()}
    own = catalogue(tmp_path / "mine.toml", hub)
    source = write_repository(tmp_path / "tiny-hub", repository())
    made = adopt(source, tmp_path / "data", own=own)
    # The catalogue knows what the files do not say.
    assert made.spec.query_prefix == "query: "
    (source / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UsageError, match=r"is not that model: config\.json has SHA-256"):
        adopt(source, tmp_path / "other", own=own)


def test_an_artifact_cannot_take_the_name_of_another(tiny_mean: Artifact, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a model of the catalogue"):
        adopt(tiny_mean.directory, tmp_path, model_id="bge-small-en-v1.5")


@pytest.mark.parametrize("source", ["nowhere", "."])
def test_what_is_no_model_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(EmbedError):
        adopt(tmp_path / source, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("*"))
