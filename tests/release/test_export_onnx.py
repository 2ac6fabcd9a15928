"""Weights in, artifact out: the same bytes for the same sources, and a refusal for the rest."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from cortex_embed.errors import ModelFileError, OutputError
from cortex_embed.models.artifact import GRAPH, MANIFEST, TOKENIZER, load_artifact
from cortex_embed.models.catalogue import find
from cortex_embed.providers.engine import Engine
from export_onnx import export, is_current, main
from make_tiny import make_tiny, tiny_spec
from tests.models_fixtures import embed_directly

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

SPEC = tiny_spec("cls")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "source", "cls")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out put" / "tiny-größe"


def load(source: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    tensors: dict[str, Any] = load_file(source / "model.safetensors")
    return tensors


def save(source: Path, tensors: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file(tensors, source / "model.safetensors")


def configure(source: Path, **changes: object) -> None:
    path = source / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not None}))


def export_fp32(source: Path, spec: Any, out: Path) -> Artifact:
    """Without the time that int8's calibration takes."""
    return export(source, spec, out, precisions=["fp32"])


def refused(source: Path, out: Path, spec: Any = SPEC) -> str:
    """The message of the refusal, after checking that nothing was written."""
    with pytest.raises(ModelFileError) as caught:
        export_fp32(source, spec, out)
    assert not out.exists()
    assert not out.parent.exists() or list(out.parent.iterdir()) == []
    return caught.value.message


def test_the_same_sources_give_the_same_bytes(source: Path, out: Path) -> None:
    one, two = export(source, SPEC, out), export(source, SPEC, out.with_name("again"))
    assert {p.name for p in out.iterdir()} == {
        *(GRAPH, TOKENIZER, MANIFEST, "model.onnx.data", "model.compatible.onnx"),
        *("model.int8.onnx", "model.int8.onnx.data", "model.int8.compatible.onnx"),
        *("model.tokens.onnx", "model.tokens.compatible.onnx"),
        *("model.int8.tokens.onnx", "model.int8.tokens.compatible.onnx"),
    }
    for file in one.directory.iterdir():
        assert file.read_bytes() == (two.directory / file.name).read_bytes(), file.name


@pytest.mark.parametrize("fixture", ["tiny_cls", "tiny_mean"])
def test_graphs_are_what_the_manifest_says(fixture: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(fixture)
    assert sorted((g.precision, g.output, g.opset) for g in artifact.graphs) == [
        ("fp32", "text", 20), ("fp32", "text", 24), ("fp32", "tokens", 20), ("fp32", "tokens", 24),
        ("int8", "text", 20), ("int8", "text", 24), ("int8", "tokens", 20), ("int8", "tokens", 24),
    ]  # fmt: skip
    for graph in artifact.graphs:
        path = artifact.directory / graph.file
        onnx.checker.check_model(str(path))
        model = onnx.load(str(path), load_external_data=False)
        versions = {o.domain: o.version for o in model.opset_import}
        assert versions[""] == graph.opset
        assert set(versions) <= {"", "com.microsoft"}
        assert model.ir_version <= 10
        assert [i.name for i in model.graph.input] == ["input_ids", "attention_mask"]
        names = {"text": "sentence_embedding", "tokens": "token_embeddings"}
        assert [o.name for o in model.graph.output] == [names[graph.output]]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_both_graphs_of_a_precision_agree(tiny_cls: Artifact, precision: str) -> None:
    texts = ["a", "the quick brown fox", "read " * 40]
    ids = [np.array(i) for i in ([2, 90, 3], [2, 90, 120, 200, 3], [2, *[100] * 40, 3])]
    assert len(texts) == len(ids)
    vectors = [
        Engine(tiny_cls.graph_for(precision, opset), dimensions=32).run(ids) for opset in (20, 24)
    ]
    np.testing.assert_allclose(vectors[0], vectors[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("name", ["tiny_cls", "tiny_mean"])
def test_what_is_pooled_are_the_states(
    name: str, precision: str, request: pytest.FixtureRequest
) -> None:
    """In both graphs of a precision, and whatever stands beside a text."""
    artifact: Artifact = request.getfixturevalue(name)
    ids = [np.array(i) for i in ([2, 90, 3], [2, 90, 120, 200, 3], [2, *[100] * 40, 3])]
    for opset in (20, 24):
        graph = artifact.token_graph_for(precision, opset)
        assert graph is not None
        states = Engine(graph, dimensions=32).run(ids)
        assert states.shape == (3, 42, 32)
        pooled = Engine(artifact.graph_for(precision, opset), dimensions=32).run(ids)
        for text, rows, vector in zip(ids, states, pooled, strict=True):
            kept = rows[: len(text)]
            expected = kept[0] if artifact.spec.pooling == "cls" else kept.mean(axis=0)
            np.testing.assert_allclose(expected, vector, rtol=0, atol=1e-6)


def test_int8_is_measured_and_says_so(tiny_cls: Artifact, tiny_mean: Artifact) -> None:
    for artifact in (tiny_cls, tiny_mean):
        gate = artifact.manifest["gates"]["int8"]
        assert gate["texts"] == 400
        assert 0.9 < gate["mean_cosine"] < 1
        assert gate["passed"] is (
            gate["mean_cosine"] >= gate["min_mean_cosine"]
            and gate["top10_overlap"] >= gate["min_top10_overlap"]
        )


def test_an_export_that_is_current_is_recognised(source: Path, out: Path) -> None:
    export_fp32(source, SPEC, out)
    assert is_current(source, out)
    save(source, {name: tensor * 2 for name, tensor in load(source).items()})
    assert not is_current(source, out)
    assert not is_current(source, out.with_name("none"))


def test_the_tokenizers_own_truncation_is_gone(source: Path, out: Path) -> None:
    assert json.loads((source / TOKENIZER).read_text())["truncation"]["max_length"] == 16
    written = json.loads(export_fp32(source, SPEC, out).tokenizer.read_text(encoding="utf-8"))
    assert written["truncation"] is None
    assert written["padding"] is None


@pytest.mark.parametrize("name", ["tiny_cls", "tiny_mean"])
def test_padding_and_neighbours_do_not_matter(name: str, request: pytest.FixtureRequest) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    texts = ["a", "the quick brown fox", "read " * 100, "", "世界 🙂", "sat on the mat " * 5]
    alone = embed_directly(artifact, texts, batch=1)
    together = embed_directly(artifact, texts, batch=len(texts))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_an_empty_mask_gives_numbers(tiny_mean: Artifact) -> None:
    import onnxruntime as ort

    session = ort.InferenceSession(str(tiny_mean.graph_for("fp32", 20)))
    ids = np.array([[2, 3], [2, 3]], dtype=np.int64)
    mask = np.array([[1, 1], [0, 0]], dtype=np.int64)
    (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    assert np.isfinite(vectors).all()
    assert not vectors[1].any()


def test_the_output_is_pooled_and_not_normalized(tiny_cls: Artifact, tiny_mean: Artifact) -> None:
    for artifact in (tiny_cls, tiny_mean):
        lengths = np.linalg.norm(embed_directly(artifact, ["hello", "world"], batch=2), axis=1)
        assert (np.abs(lengths - 1) > 0.1).all()


def test_names_may_start_with_bert(source: Path, out: Path) -> None:
    plain = export_fp32(source, SPEC, out).files
    save(source, {f"bert.{name}": tensor for name, tensor in load(source).items()})
    assert export_fp32(source, SPEC, out).files == plain


def test_position_ids_are_no_weights(source: Path, out: Path) -> None:
    before = export_fp32(source, SPEC, out).manifest["parameters"]
    save(source, load(source) | {"embeddings.position_ids": np.arange(64).reshape(1, 64)})
    assert export_fp32(source, SPEC, out).manifest["parameters"] == before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_floats_are_widened_exactly(source: Path, out: Path, dtype: str) -> None:
    import ml_dtypes  # noqa: F401 - teaches numpy the name bfloat16

    narrow = {name: tensor.astype(dtype) for name, tensor in load(source).items()}
    save(source, {name: tensor.astype("float32") for name, tensor in narrow.items()})
    wide = export_fp32(source, SPEC, out).files
    save(source, narrow)
    assert export_fp32(source, SPEC, out).files == wide


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": "roberta"}, "`model_type` is 'roberta'; only 'bert'"),
        ({"hidden_act": "gelu_new"}, "`hidden_act` is 'gelu_new'; only 'gelu'"),
        ({"hidden_act": "relu"}, "`hidden_act` is 'relu'"),
        ({"position_embedding_type": "relative_key"}, "`position_embedding_type`"),
        ({"is_decoder": True}, "`is_decoder` is True"),
        ({"max_position_embeddings": 63}, "max_tokens is 64, over the 63 positions"),
        ({"num_attention_heads": 5}, "no multiple of `num_attention_heads` 5"),
        ({"num_hidden_layers": "2"}, "`num_hidden_layers` must be a whole number"),
        ({"layer_norm_eps": None}, "`layer_norm_eps` is missing"),
        ({"vocab_size": 100}, "the largest token id is"),
        ({"intermediate_size": 65}, "has shape [64, 32], config.json says [65, 32]"),
        ({"num_hidden_layers": 3}, "has no tensor 'encoder.layer.2."),
    ],
)
def test_an_unsupported_configuration_is_refused(
    source: Path, out: Path, changes: dict[str, object], words: str
) -> None:
    configure(source, **changes)
    assert words in refused(source, out)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "t5"}, "family is 't5', only bert, mpnet"),
        ({"pooling": "max"}, "pooling is 'max', only cls, mean and last_token"),
        ({"dimensions": 384}, "dimensions is 384, but `hidden_size`"),
        ({"max_tokens": 65}, "max_tokens is 65, over the 64 positions"),
    ],
)
def test_a_spec_that_does_not_fit_is_refused(
    source: Path, out: Path, changes: dict[str, Any], words: str
) -> None:
    assert words in refused(source, out, replace(SPEC, **changes))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_or_damaged_source_is_named(source: Path, out: Path, name: str) -> None:
    (source / name).write_bytes(b"\xff garbage")
    assert str(source / name) in refused(source, out)
    (source / name).unlink()
    assert f"{source / name} is missing" in refused(source, out)


def test_a_missing_tensor_is_named(source: Path, out: Path) -> None:
    tensors = load(source)
    del tensors["encoder.layer.1.output.dense.bias"]
    save(source, tensors)
    assert "no tensor 'encoder.layer.1.output.dense.bias'" in refused(source, out)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_no_number_is_refused(source: Path, out: Path, value: float) -> None:
    tensors = load(source)
    tensors["encoder.layer.0.output.dense.weight"][3, 3] = value
    save(source, tensors)
    assert "'encoder.layer.0.output.dense.weight' holds NaN or infinity" in refused(source, out)


def test_a_cut_safetensors_file_is_refused(source: Path, out: Path) -> None:
    path = source / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "is no safetensors file" in refused(source, out)


def test_an_older_artifact_is_replaced_only_by_a_good_one(source: Path, out: Path) -> None:
    export_fp32(source, SPEC, out)
    configure(source, hidden_act="relu")
    with pytest.raises(ModelFileError):
        export_fp32(source, SPEC, out)
    load_artifact(out).verify()
    configure(source, hidden_act="gelu")
    export_fp32(source, replace(SPEC, id="other"), out)
    assert load_artifact(out).spec.id == "other"
    assert [p.name for p in out.parent.iterdir()] == [out.name]


def test_a_directory_of_other_files_is_never_replaced(source: Path, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "thesis.txt").write_text("x")
    with pytest.raises(OutputError, match="holds other files"):
        export_fp32(source, SPEC, out)
    assert (out / "thesis.txt").exists()


def test_a_graph_that_does_not_run_is_not_published(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bert_graph.IDS", "something_else")
    assert "does not run" in refused(source, out)


@pytest.mark.real
def test_the_embedded_model_is_what_its_sources_give(
    minilm_sources: Path, minilm_artifact: Artifact, tmp_path: Path
) -> None:
    entry = find("all-minilm-l6-v2")
    assert entry is not None
    minilm_artifact.verify()
    made = export_fp32(minilm_sources, entry.spec, tmp_path / "out")
    assert made.files.items() <= minilm_artifact.files.items()
    assert made.sources == {file.path: file.sha256 for file in entry.source_files}
    assert made.manifest["parameters"] == entry.parameters
    assert made.manifest["layers"] == entry.layers
    assert made.manifest["hidden"] == entry.hidden
    shutil.rmtree(made.directory)


def test_the_command_line(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(source), "--model", "nothing", "--out", str(out)]) == 2
    assert "no model named 'nothing'" in capsys.readouterr().err
    assert main([str(source), "--model", "bge-small", "--out", str(out)]) == 3
    assert "error: Model bge-small-en-v1.5: " in capsys.readouterr().err
