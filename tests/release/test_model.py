"""The full asset's model: through the real hub client from a hub on loopback, exported, proven.

A tiny model of ours stands for BGE-small, whose weights no test can fetch; its golden vectors
are what transformers computed (tests/data).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import huggingface_hub
import pytest
from msgspec.structs import replace

import freeze
import targets
from cortex_embed.domain import Golden
from cortex_embed.errors import ModelFileError, SelfTestError, UsageError
from cortex_embed.models.artifact import load_artifact
from cortex_embed.models.catalogue import CatalogueEntry, SourceFile, SumCheck, find
from cortex_embed.models.golden import read_goldens
from make_tiny import make_tiny, tiny_spec
from release import model
from tests.hub import REVISION, Hub

REPO = "cortex-embed/tiny-released"
ID = "tiny-released"
DATA = Path(__file__).resolve().parents[1] / "data"


@dataclass
class Setting:
    hub: Hub
    entry: CatalogueEntry
    work: Path
    monkeypatch: pytest.MonkeyPatch

    def prepare(self, **changes: object) -> Path:
        """With an entry of the catalogue that is changed so."""
        entry = replace(self.entry, **changes)
        for where in ("release.model.find", "cortex_embed.models.golden.find"):
            self.monkeypatch.setattr(where, lambda name: entry if name == ID else find(name))
        return model.prepare(ID, self.work)

    @property
    def exported(self) -> Path:
        return self.work / "models" / ID


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    source = make_tiny(tmp_path / "published", "cls")
    content = {path.name: path.read_bytes() for path in source.iterdir()}
    hub = Hub()
    hub.repositories[REPO] = content
    real = functools.partial(huggingface_hub.hf_hub_download, endpoint=hub.url)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", real)
    files = tuple(
        SourceFile(name, len(data), sha256(data).hexdigest(), 2, REPO, REVISION)
        for name, data in content.items()
    )
    known = find("bge-small-en-v1.5")
    assert known is not None
    spec = replace(tiny_spec("cls"), id=ID, repo=REPO, revision=REVISION, aliases=())
    entry = replace(
        known, spec=spec, files=files, goldens=(published(),), sum_check=None, pypi=None
    )
    yield Setting(hub, entry, tmp_path / "dist", monkeypatch)
    hub.close()


def published() -> Golden:
    """As BGE-small's is published: the five leading values of one text's vector."""
    whole = read_goldens(DATA / "golden-tiny-cls.json")[0]
    return replace(whole, vector=whole.vector[:5], tolerance=1e-3, source="somebody@1234")


def test_pinned_bytes_with_the_published_vector_are_handed_out(
    setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    out = setting.prepare()
    assert out == setting.exported
    load_artifact(out).verify()
    said = capsys.readouterr().out
    assert f"from the hub ({REPO} @ {REVISION})" in said
    assert "against somebody" in said
    assert "1 of them against golden vectors" in said
    asked = setting.hub.count("GET", "model.safetensors")
    assert asked == 1
    assert setting.prepare() == out
    assert setting.hub.count("GET", "model.safetensors") == asked
    assert "up to date and verified" in capsys.readouterr().out


def test_wrong_bytes_stop(setting: Setting) -> None:
    setting.hub.repositories[REPO]["model.safetensors"] = bytes(70_000)
    with pytest.raises(ModelFileError, match=r"model\.safetensors"):
        setting.prepare()
    assert not setting.exported.exists()


def test_bytes_that_change_on_the_way_stop(setting: Setting) -> None:
    setting.hub.trouble("model.safetensors", "wrong")
    with pytest.raises(ModelFileError, match="SHA-256"):
        setting.prepare()
    assert not setting.exported.exists()


def test_a_wrong_golden_vector_stops(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    good = published()
    wrong = replace(good, vector=(good.vector[0] + 0.01, *good.vector[1:]))
    with pytest.raises(SelfTestError, match="not the model's"):
        setting.prepare(goldens=(wrong,))
    assert "FAIL   1.00e-02 (at most 1e-03)" in capsys.readouterr().out


def test_wrong_published_sums_stop(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    golden = published()
    sums = SumCheck((golden.text,), (100.0,), 1e-3, "somebody@1234", "float32")
    with pytest.raises(SelfTestError, match="not the model's"):
        setting.prepare(sum_check=sums)
    assert "FAIL" in capsys.readouterr().out


def test_a_model_without_a_published_vector_is_not_released(setting: Setting) -> None:
    with pytest.raises(UsageError, match="no published golden vector"):
        setting.prepare(goldens=())
    assert not setting.work.exists()


def test_a_model_that_is_unknown() -> None:
    with pytest.raises(UsageError, match=r"targets.toml wants model 'nothing'"):
        model.prepare("nothing", Path("dist"))


def test_the_table_s_model_can_be_proven() -> None:
    entry = find(targets.load().release.model)
    assert entry is not None
    assert entry.goldens
    assert all(file.evidence >= 2 and file.sha256 for file in entry.source_files)
    assert entry.source_files


def test_freezing_a_release_stops_where_the_model_is_not_proven(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> Path:
        raise SelfTestError("these vectors are not the model's")

    monkeypatch.setattr("release.model.prepare", refuse)
    monkeypatch.setattr(freeze, "make", lambda *_: pytest.fail("it was frozen"))
    monkeypatch.setattr(freeze, "refuse_static_python", lambda: None)
    with pytest.raises(SystemExit, match="not the model's"):
        freeze.main(["--release"])


def test_main_says_why_and_how(setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    assert model.main(["--model", "nothing", "--work", str(setting.work)]) == 2
    assert "error: targets.toml wants model 'nothing'" in capsys.readouterr().err
    setting.prepare()
    assert model.main(["--model", ID, "--work", str(setting.work)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(setting.exported)


def test_the_manifest_names_the_repository_and_revision(setting: Setting) -> None:
    manifest = json.loads((setting.prepare() / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["id"], manifest["repo"], manifest["revision"]) == (ID, REPO, REVISION)
