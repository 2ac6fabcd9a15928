"""The doctor tells what is so, and no credential."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from cortex_embed import cli
from cortex_embed.commands import doctor
from cortex_embed.config import Settings
from cortex_embed.models import store
from tests.models_fixtures import with_other_graph

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.store import Artifact


def found(settings: Settings, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    code = doctor.run(settings, as_json=True)
    lines = json.loads(capsys.readouterr().out)
    return code, {line["name"]: line["value"] for line in lines}


def test_a_sound_installation(tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    code, facts = found(Settings(model=(str(tiny_mean.directory),), threads=3), capsys)
    assert code == 0
    assert facts["model"].startswith("tiny-mean, 32 dimensions, 48 tokens, licence mit")
    assert facts["fingerprint"].startswith("cx1:")
    assert facts["threads"].startswith("3, as asked for")
    assert "our own export" in facts["graph"]
    assert "onnxruntime" in facts["libraries"]


def test_the_engine_and_why(
    kernel_mean: Artifact, tiny_mean: Artifact, tmp_path: Path, kernel_sets: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    _, facts = found(Settings(model=(str(tiny_mean.directory),)), capsys)
    assert facts["engine"] == "onnxruntime, hidden is 32, no multiple of 64"
    assert facts["kernels"] == (", ".join(kernel_sets) or "none for this processor")
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    _, facts = found(Settings(model=(str(kernel_mean.directory),), precision="int8"), capsys)
    assert facts["engine"] == f"native, {kernel_sets[0]}"
    with_other_graph(kernel_mean, tmp_path / "odd")
    _, facts = found(Settings(model=(str(tmp_path / "odd"),), precision="int8"), capsys)
    assert facts["engine"].startswith("native, which cannot run this graph: Mul gives")


def test_for_people(tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--model", str(tiny_mean.directory)]) == 0
    out = capsys.readouterr().out
    assert "No problems found." in out
    assert "tiny-mean" in out


def test_a_damaged_model_is_a_problem(
    tiny_mean: Artifact, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "model"
    shutil.copytree(tiny_mean.directory, copy)
    (copy / "tokenizer.json").write_text("{}", encoding="utf-8")
    code, facts = found(Settings(model=(str(copy),)), capsys)
    assert code == 3
    assert "tokenizer.json has 2 bytes" in facts["model"]
    assert "free disk" in facts  # it goes on looking


def test_what_would_be_downloaded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(store, "data_dir", lambda: tmp_path)
    monkeypatch.setattr(store, "EMBEDDED_DIR", tmp_path / "none")
    for names, repo in ((("bge-m3",), "BAAI/bge-m3"), ((), "BAAI/bge-small-en-v1.5")):
        code, facts = found(Settings(model=names), capsys)
        assert code == 0
        assert "to download (at least " in facts["model"]
        assert f"onnx/model.onnx of {repo}" in facts["model"]
    assert "pickle" in found(Settings(model=("codebert-base",)), capsys)[1]["model"]


def test_no_credential_is_shown(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:hunter2@proxy.example:3128")
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2")
    _, facts = found(Settings(model=(str(tiny_mean.directory),)), capsys)
    assert facts["HTTPS_PROXY"] == "http://…@proxy.example:3128"
    assert facts["HF_TOKEN"] == "set, not shown"
    assert "hunter2" not in json.dumps(facts)


def test_little_disk_is_noted(
    tiny_mean: Artifact, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: replace_free(usage))
    doctor.run(Settings(model=(str(tiny_mean.directory),)), as_json=False)
    assert "! free disk" in capsys.readouterr().out


def replace_free(usage: object) -> object:
    return type(usage)(usage.total, usage.used, 1)  # type: ignore[attr-defined, call-arg]
