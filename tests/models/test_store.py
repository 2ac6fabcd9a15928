"""From a name to an artifact directory: the order of places, and every way not to find one."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import ModelFileError, ModelNotFoundError, NotInstalledError
from cortex_embed.models import store
from cortex_embed.models.artifact import MANIFEST
from tests.hub import repository, write_repository

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

MINILM = "all-minilm-l6-v2"
BGE = "bge-small-en-v1.5"


@dataclass(frozen=True)
class Disk:
    """The three places, all empty at first, and a model to put there under any name."""

    embedded: Path
    data: Path
    model_dir: Path
    model: Artifact

    def put(self, place: Path, model_id: str, *aliases: str) -> Path:
        shutil.copytree(self.model.directory, place)
        manifest = json.loads((place / MANIFEST).read_text(encoding="utf-8"))
        manifest |= {"id": model_id, "repo": f"Owner/{model_id}", "aliases": list(aliases)}
        (place / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
        return place


@pytest.fixture
def disk(tiny_cls: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    base = tmp_path / "wörk ing 目录"
    made = Disk(base / "embedded", base / "data", base / "my models", tiny_cls)
    made.model_dir.mkdir(parents=True)
    monkeypatch.setattr(store, "EMBEDDED_DIR", made.embedded)
    monkeypatch.setattr(store, "data_dir", lambda: made.data)
    monkeypatch.chdir(base)
    return made


def test_no_name_means_the_embedded_model(disk: Disk) -> None:
    place = disk.put(disk.embedded, MINILM)
    disk.put(disk.data / BGE, BGE)
    assert store.locate().directory == place
    assert store.locate(None, disk.model_dir).directory == place


def test_no_name_with_an_artifact_as_model_dir_means_that(disk: Disk) -> None:
    disk.put(disk.embedded, MINILM)
    place = disk.put(disk.model_dir / "mine", "mine")
    assert store.locate(None, place).directory == place


def test_no_name_and_nothing_embedded_means_the_default_model(disk: Disk) -> None:
    disk.put(disk.data / MINILM, MINILM)
    with pytest.raises(ModelFileError) as caught:
        store.locate()
    for part in (BGE, str(disk.embedded), str(disk.data), f"models pull {BGE}", "--model-dir"):
        assert part in caught.value.message
    place = disk.put(disk.data / BGE, BGE)
    assert store.locate().directory == place


@pytest.mark.parametrize("name", ["mine", "MINE", "Owner/mine", "my-alias", "mine:latest"])
def test_every_name_of_a_model_finds_it_in_every_place(disk: Disk, name: str) -> None:
    in_data = disk.put(disk.data / "mine", "mine", "my-alias")
    assert store.locate(name).directory == in_data
    embedded = disk.put(disk.embedded, "mine", "my-alias")
    assert store.locate(name).directory == embedded
    child = disk.put(disk.model_dir / "anything", "mine", "my-alias")
    assert store.locate(name, disk.model_dir).directory == child
    assert store.locate(name, child).directory == child


def test_the_embedded_model_serves_its_own_names_only(disk: Disk) -> None:
    disk.put(disk.embedded, MINILM, "all-minilm")
    assert store.locate("all-minilm").directory == disk.embedded
    with pytest.raises(ModelFileError, match=f"Model {BGE} is not on this machine"):
        store.locate("bge-small")


def test_a_path_is_a_name(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    place = disk.put(disk.model_dir / "a b", "mine")
    assert store.locate(str(place)).spec.id == "mine"
    monkeypatch.chdir(disk.model_dir)
    assert store.locate("./a b").spec.id == "mine"
    assert store.locate("a b").spec.id == "mine"
    monkeypatch.chdir(place.parent.parent)
    assert store.locate("my models/a b").spec.id == "mine"
    monkeypatch.setenv("HOME", str(disk.model_dir))
    monkeypatch.setenv("USERPROFILE", str(disk.model_dir))
    assert store.locate("~/a b").spec.id == "mine"


def test_a_directory_never_shadows_a_known_name(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk.put(disk.model_dir / MINILM, "impostor")
    place = disk.put(disk.data / MINILM, MINILM)
    monkeypatch.chdir(disk.model_dir)
    assert store.locate(MINILM).directory == place
    assert store.locate(f"./{MINILM}").spec.id == "impostor"


@pytest.mark.parametrize("name", ["./nowhere", "no/where", "/no/where", "\0", "x" * 5000, "a/\0"])
def test_a_path_without_manifest_is_named(disk: Disk, name: str) -> None:
    with pytest.raises((ModelFileError, ModelNotFoundError)) as caught:
        store.locate(name)
    assert name.strip("./\0")[:20] in caught.value.message


def test_an_unknown_name_lists_the_known_ones(disk: Disk) -> None:
    disk.put(disk.data / "mine", "mine")
    with pytest.raises(ModelNotFoundError) as caught:
        store.locate("text-embedding-3-small")
    for part in ("'text-embedding-3-small'", MINILM, BGE, "mine"):
        assert part in caught.value.message
    assert caught.value.exit_code == 2


def test_a_model_dir_that_is_not_there_is_an_error(disk: Disk) -> None:
    disk.put(disk.embedded, MINILM)
    for wrong in (disk.model_dir / "typo", disk.embedded / MANIFEST, disk.model_dir / ("x" * 5000)):
        with pytest.raises(ModelFileError, match="--model-dir"):
            store.locate(MINILM, wrong)
        with pytest.raises(ModelFileError, match="--model-dir"):
            store.installed(wrong)


def test_a_broken_neighbour_does_not_matter(disk: Disk) -> None:
    broken = disk.put(disk.data / "broken", "broken")
    (broken / MANIFEST).write_text("{", encoding="utf-8")
    place = disk.put(disk.data / "mine", "mine")
    assert store.locate("mine").directory == place


def test_a_broken_model_is_not_passed_over(disk: Disk) -> None:
    broken = disk.put(disk.model_dir / MINILM, MINILM)
    (broken / MANIFEST).write_text("{", encoding="utf-8")
    disk.put(disk.data / MINILM, MINILM)
    with pytest.raises(ModelFileError, match="not valid JSON"):
        store.locate("all-minilm", disk.model_dir)


def test_a_broken_embedded_model_is_an_error(disk: Disk) -> None:
    disk.put(disk.embedded, MINILM)
    (disk.embedded / MANIFEST).write_text("{", encoding="utf-8")
    with pytest.raises(ModelFileError, match="not valid JSON"):
        store.locate()


def test_installed_lists_all_in_order_of_preference(disk: Disk) -> None:
    assert store.installed() == []
    disk.put(disk.data / "b", "b")
    disk.put(disk.data / "a", "a")
    disk.put(disk.embedded, "e")
    disk.put(disk.model_dir / "m", "m")
    assert [a.spec.id for a in store.installed(disk.model_dir)] == ["m", "e", "a", "b"]


def test_installed_reports_a_broken_one(disk: Disk) -> None:
    broken = disk.put(disk.data / "a", "a")
    (broken / MANIFEST).write_text("{", encoding="utf-8")
    disk.put(disk.data / "b", "b")
    with pytest.raises(ModelFileError):
        store.installed()
    told: list[ModelFileError] = []
    assert [a.spec.id for a in store.installed(on_broken=told.append)] == ["b"]
    assert str(broken) in told[0].message


def test_the_data_directory_is_ours_and_not_temporary(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(Path.cwd().anchor + "someone"))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    place = store.data_dir()
    assert place.parts[-2:] == ("cortex-embed", "models")
    assert "someone" in place.parts


def test_a_directory_as_its_authors_publish_it_is_a_model(disk: Disk) -> None:
    published = write_repository(disk.model_dir / "Published", repository(external=True))
    before = sorted(published.rglob("*"))
    by_path = store.locate(str(published))
    assert (by_path.spec.id, by_path.is_own) == ("published", False)
    assert by_path.graph_for("fp32", 1) == published / "onnx" / "model.onnx"
    by_path.verify()
    assert set(by_path.files) == {
        "config.json", "tokenizer.json", "onnx/model.onnx", "onnx/model.onnx_data"
    }  # fmt: skip
    assert store.locate("published", disk.model_dir) == by_path
    assert store.locate(None, published) == by_path
    assert [a.spec.id for a in store.installed(disk.model_dir)] == ["published"]
    assert sorted(published.rglob("*")) == before
    (published / "onnx" / "model.onnx_data").write_bytes(b"other")
    with pytest.raises(ModelFileError, match=r"model\.onnx_data has 5 bytes"):
        by_path.verify()
    (published / "1_Pooling" / "config.json").unlink()
    with pytest.raises(ModelFileError, match="State `pooling`"):
        store.locate("published", disk.model_dir)


def test_a_known_model_that_is_not_here_says_how_to_get_it(disk: Disk) -> None:
    assert not disk.data.exists()
    with pytest.raises(NotInstalledError, match="`cortex-embed models pull bge-m3`") as caught:
        store.locate("BAAI/bge-m3")
    assert (caught.value.model, caught.value.exit_code) == ("bge-m3", 3)
    with pytest.raises(NotInstalledError, match="It cannot be downloaded: its repository"):
        store.locate("codebert-base")
