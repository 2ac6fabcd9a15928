"""What goes into a bundle. That it runs is for `nox -s smoke` to show."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import compile_kernels
import freeze
import targets
from cortex_embed.models.artifact import Artifact, load_artifact


@pytest.mark.real
@pytest.mark.parametrize(
    ("asked", "kept"), [(None, ("int8",)), ("fp32", ("fp32",)), ("both", ("fp32", "int8"))]
)
def test_a_staged_model_is_whole_and_no_more(
    minilm_artifact: Artifact, tmp_path: Path, asked: str | None, kept: tuple[str, ...]
) -> None:
    freeze.stage(minilm_artifact, tmp_path / "model", asked)
    staged = load_artifact(tmp_path / "model")
    staged.verify()
    assert staged.precisions == kept
    on_disk = {path.name for path in staged.directory.iterdir()}
    assert on_disk == {"manifest.json", *staged.files}
    outputs = {(g.precision, g.output) for g in staged.graphs}
    assert outputs == {(p, output) for p in kept for output in ("text", "tokens")}
    assert len(staged.graphs) == len(outputs)
    manifest = json.loads((staged.directory / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["gates"] == minilm_artifact.manifest["gates"]


def test_a_model_without_a_passed_gate_goes_in_as_float32(
    tiny_mean: Artifact, tmp_path: Path
) -> None:
    assert not tiny_mean.passed_gate("int8")
    freeze.stage(tiny_mean, tmp_path / "model", None)
    assert load_artifact(tmp_path / "model").precisions == ("fp32",)


def test_nothing_that_we_import_is_left_out() -> None:
    """Every third-party module that a command loads, in a process that runs them."""
    needed = ("aiohttp.web", "msgspec", "numpy", "onnxruntime", "orjson", "platformdirs",
              "tokenizers", "tqdm", "ssl", "json", "asyncio")  # fmt: skip
    excluded = set(freeze.EXCLUDES)
    for name in needed:
        parts = name.split(".")
        assert not {".".join(parts[: n + 1]) for n in range(len(parts))} & excluded


def test_the_kernels_of_this_machine_go_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compile_kernels, "LIB", tmp_path)
    with pytest.raises(SystemExit, match=r"is missing\. Run build/compile_kernels\.py first"):
        freeze.kernels_library()
    here = targets.here(targets.load())
    library = tmp_path / compile_kernels.library_name(here)
    library.touch()
    assert freeze.kernels_library() == library
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert freeze.kernels_library() is None
    assert "No kernels for this machine" in capsys.readouterr().err


def test_slim_and_model_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        freeze.main(["--slim", "--model", "somewhere"])
    assert caught.value.code == 2
    assert "--slim" in capsys.readouterr().err
