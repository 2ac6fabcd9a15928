from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed import cli
from cortex_embed.models import store
from cortex_embed.models.adopt import adopt
from tests.hub import Hub, catalogue, repository, write_repository

if TYPE_CHECKING:
    from cortex_embed.models.store import Artifact


def test_the_table_names_catalogue_and_installed(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["models", "list", "--model-dir", str(tiny_mean.directory)])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == [
        "id", "dimensions", "max_tokens", "pooling", "licence", "download", "graph", "installed"
    ]  # fmt: skip
    assert any(line.split()[:2] == ["bge-small-en-v1.5", "384"] for line in lines)
    (tiny,) = [line for line in lines if line.startswith(tiny_mean.spec.id)]
    assert tiny.endswith(str(tiny_mean.directory))


def test_json_for_programs(tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["models", "list", "--json", "--model-dir", str(tiny_mean.directory)])
    table = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert table["bge-small-en-v1.5"]["pooling"] == "cls"
    assert table[tiny_mean.spec.id]["installed"] == str(tiny_mean.directory)


def run(*arguments: str) -> int:
    return cli.run(["models", *arguments])


def test_what_is_known_of_an_installed_model(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ("--model-dir", str(tiny_mean.directory))
    assert run("info", tiny_mean.spec.id, "--json", *where) == 0
    known = json.loads(capsys.readouterr().out)
    assert known["graph"] == "our export"
    assert known["installed"] == str(tiny_mean.directory)
    assert set(known["fingerprints"]) == set(known["precisions"]) == {*tiny_mean.precisions}
    assert run("info", tiny_mean.spec.id, *where) == 0
    shown = capsys.readouterr().out
    assert known["fingerprints"]["fp32"] in shown
    assert run("path", tiny_mean.spec.id, *where) == 0
    assert capsys.readouterr().out == f"{tiny_mean.directory}\n"


def test_what_is_known_of_a_model_that_is_not_here(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "data_dir", lambda: tmp_path)
    assert run("info", "bge-m3", "--json") == 0
    known = json.loads(capsys.readouterr().out)
    assert (known["installed"], known["graph"]) == (None, "onnx/model.onnx")
    assert "published in the model's repository" in known["graph_because"]
    assert known["download"] > 2 * 10**9
    assert run("info", "embeddinggemma") == 0
    assert "Gemma terms of use" in capsys.readouterr().out
    assert run("path", "bge-m3") == 3
    assert "models pull bge-m3" in capsys.readouterr().err
    assert run("info", "nonsense") == 2
    assert run("verify", "nonsense") == 2


def test_verify_finds_what_is_damaged(
    tiny_mean: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(store, "data_dir", lambda: tmp_path / "data")
    monkeypatch.setattr(store, "EMBEDDED_DIR", tmp_path / "embedded")
    for name in ("good", "bad", "torn"):
        adopt(tiny_mean.directory, tmp_path / "data", model_id=name)
    assert run("verify") == 0
    assert capsys.readouterr().out.count("intact") == 3
    (tmp_path / "data" / "bad" / "model.onnx").write_bytes(b"damage")
    (tmp_path / "data" / "torn" / "manifest.json").write_text("{")
    assert run("verify") == 3
    told = capsys.readouterr()
    assert "good: " in told.out
    assert "bad/model.onnx has 6 bytes" in told.err
    assert "torn/manifest.json is not valid JSON" in told.err
    assert run("verify", "good") == 0
    assert run("verify", "bad") == 3


def test_verify_believes_the_catalogue_more_than_a_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who changes a file may change the manifest beside it too."""
    monkeypatch.setattr(store, "data_dir", lambda: tmp_path / "data")
    hub = Hub.__new__(Hub)
    hub.repositories = {"cortex-embed/tiny": repository()}
    own = str(catalogue(tmp_path / "mine.toml", hub))
    source = write_repository(tmp_path / "tiny-hub", repository())
    assert run("import", str(source), "--catalogue", own) == 0
    assert run("pull", "tiny-hub", "--catalogue", own, "--offline") == 0
    assert run("verify", "tiny-hub", "--catalogue", own) == 0
    path = tmp_path / "data" / "tiny-hub" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["sources"]["config.json"] = "0" * 64
    path.write_text(json.dumps(manifest))
    assert run("verify", "tiny-hub", "--catalogue", own) == 3
    assert "config.json has SHA-256 0000" in capsys.readouterr().err


def test_what_is_wrong_with_a_catalogue_of_ones_own_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.toml"
    assert run("list", "--catalogue", str(own)) == 2
    own.write_text("schema = 9")
    assert run("list", "--catalogue", str(own)) == 2
    assert f"{own} has schema 9" in capsys.readouterr().err
