"""A directory in Hugging Face's layout says what it is, or is refused with what it does not say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cortex_embed.errors import ModelFileError
from cortex_embed.models.artifact import load_artifact
from cortex_embed.models.fingerprint import fingerprints
from cortex_embed.models.repository import DESCRIPTION, describe, manifest, with_fingerprints

CONFIG = {
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 100,
    "max_position_embeddings": 64,
}
MODULES = [
    {"path": path, "type": f"sentence_transformers.models.{kind}"}
    for path, kind in (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
]
MEAN = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}


def write(directory: Path, **files: Any) -> Path:
    """`config__json=…` is config.json; a dot is __, a slash is ___."""
    for name, content in files.items():
        path = directory / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return directory


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """As sentence-transformers saves a model, with an ONNX export."""
    return write(
        tmp_path / "My-Model",
        config__json=CONFIG,
        modules__json=MODULES,
        **{"1_Pooling___config__json": MEAN},
        onnx___model__onnx="not a graph, and nobody loads it here",
        tokenizer__json="{}",
        sentence_bert_config__json={"max_seq_length": 48},
        tokenizer_config__json={"model_max_length": 1e30},
        config_sentence_transformers__json={"prompts": {"query": "q: ", "passage": "p: "}},
        README__md="---\ntags: [a]\nlicense: apache-2.0\n---\n# card",
    )


def refused(directory: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        describe(directory)
    return caught.value.message


def test_everything_is_read(published: Path) -> None:
    found = describe(published)
    assert found.graph == "onnx/model.onnx"
    assert (found.precision, found.alone) == ("fp32", False)
    spec = found.spec
    assert (spec.id, spec.repo, spec.licence) == ("my-model", "My-Model", "apache-2.0")
    assert (spec.pooling, spec.normalize) == ("mean", True)
    assert (spec.dimensions, spec.max_tokens) == (32, 48)
    assert (spec.query_prefix, spec.document_prefix) == ("q: ", "p: ")


def test_the_person_has_the_last_word(published: Path) -> None:
    said = 'id = "mine"\npooling = "cls"\nquery_prefix = ""\nmax_tokens = 16\nalone = true\n'
    (published / DESCRIPTION).write_text(said, encoding="utf-8")
    found = describe(published)
    assert (found.spec.id, found.spec.pooling, found.spec.max_tokens) == ("mine", "cls", 16)
    assert (found.spec.query_prefix, found.spec.document_prefix) == ("", "p: ")
    assert found.alone


def test_a_pooling_is_never_guessed(published: Path) -> None:
    (published / "1_Pooling" / "config.json").unlink()
    assert "State `pooling` (cls, mean or last_token)" in refused(published)
    (published / DESCRIPTION).write_text('pooling = "last_token"', encoding="utf-8")
    assert describe(published).spec.pooling == "last_token"


@pytest.mark.parametrize(
    ("modes", "says"),
    [
        ({"pooling_mode_max_tokens": True}, "asks for max_tokens;"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, "for mean and cls;"),
        ({"pooling_mode_mean_tokens": False}, "asks for no pooling"),
        ({"pooling_mode": "weightedmean"}, "asks for weightedmean;"),
        ({"pooling_mode": ["mean", "max"]}, "asks for mean and max;"),
        ({"pooling_mode": []}, "asks for no pooling"),
    ],
)
def test_a_pooling_that_cannot_be_honoured(
    published: Path, modes: dict[str, object], says: str
) -> None:
    write(published, **{"1_Pooling___config__json": modes})
    assert says in refused(published)


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": "cls", "include_prompt": True}, "cls"),
        ({"pooling_mode": ["lasttoken"]}, "last_token"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_cls_token": False}, "last_token"),
        # The older keys are what an old library reads; the newer one counts.
        ({"pooling_mode": "cls", "pooling_mode_mean_tokens": True}, "cls"),
    ],
)
def test_a_pooling_in_the_words_of_every_sentence_transformers(
    published: Path, said: dict[str, object], pooling: str
) -> None:
    write(published, **{"1_Pooling___config__json": {"embedding_dimension": 32, **said}})
    assert describe(published).spec.pooling == pooling


def test_a_prefix_that_is_not_pooled_is_refused(published: Path) -> None:
    """As INSTRUCTOR's models have it."""
    write(published, **{"1_Pooling___config__json": MEAN | {"include_prompt": False}})
    assert "leaves the prefix out of the pooling (include_prompt)" in refused(published)
    said = 'query_prefix = ""\ndocument_prefix = ""\n'
    (published / DESCRIPTION).write_text(said, encoding="utf-8")
    assert describe(published).spec.pooling == "mean"


@pytest.mark.parametrize(
    ("normalizer", "lowers"),
    [
        (None, False),
        ({"type": "NFC"}, False),
        ({"type": "BertNormalizer", "lowercase": False}, False),
        ({"type": "BertNormalizer", "lowercase": True}, True),
        ({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}, True),
    ],
)
def test_lower_case_is_the_tokenizers_work(
    published: Path, normalizer: dict[str, object] | None, lowers: bool
) -> None:
    reader = {"max_seq_length": 48, "do_lower_case": True}
    write(published, sentence_bert_config__json=reader, tokenizer__json={"normalizer": normalizer})
    if lowers:
        assert describe(published).spec.max_tokens == 48
    else:
        assert "wants texts in lower case (do_lower_case)" in refused(published)


@pytest.mark.parametrize("name", ["document", "passage", "corpus"])
def test_a_documents_prefix_goes_by_three_names(published: Path, name: str) -> None:
    prompts = {"query": "q: ", "document": "", name: "d: "}
    write(published, config_sentence_transformers__json={"prompts": prompts})
    assert describe(published).spec.document_prefix == "d: "


def test_a_dense_layer_after_pooling_is_not_left_out_silently(published: Path) -> None:
    dense = {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    write(published, modules__json=[*MODULES[:2], dense])
    assert "the module Dense is not known here" in refused(published)


@pytest.mark.parametrize(
    ("kind", "pad", "limit"),
    [("bert", 0, 64), ("xlm-roberta", 1, 62), ("roberta", None, 62), ("mpnet", 1, 62)],
)
def test_positions_that_start_late_are_fewer(
    published: Path, kind: str, pad: int | None, limit: int
) -> None:
    config = CONFIG | {"model_type": kind, "pad_token_id": pad}
    write(published, config__json=config, sentence_bert_config__json={})
    assert describe(published).spec.max_tokens == limit


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "it is no model's directory"),
        ("config.json", "{", "is not valid JSON"),
        ("config.json", "[]", "must hold a JSON object"),
        ("config.json", json.dumps({"model_type": "bert"}), "says nothing of hidden_size"),
        ("modules.json", "{}", ""),
        ("modules.json", "5", "cannot be read"),
        ("onnx/model.onnx", None, "holds no onnx/model.onnx or model.onnx"),
        (DESCRIPTION, "poling = 1", "unknown key 'poling'"),
        (DESCRIPTION, "x", "is not valid TOML"),
        (DESCRIPTION, 'pooling = "max"', "must be one of cls, mean, last_token"),
        (DESCRIPTION, 'onnx = "other.onnx"', "holds no other.onnx"),
    ],
)
def test_what_is_wrong_is_named(published: Path, name: str, content: str | None, says: str) -> None:
    if content is None:
        (published / name).unlink()
    else:
        (published / name).write_text(content, encoding="utf-8")
    if says:
        assert says in refused(published)
    else:
        assert describe(published).spec.pooling == "mean"


def test_its_manifest_is_an_artifacts(published: Path) -> None:
    """Side by side, as the store keeps files, it can be loaded and verified."""
    (published / "onnx" / "model.onnx").rename(published / "model.onnx")
    found = describe(published)
    document = manifest(published, found, sources={"onnx/model.onnx": "0" * 64})
    document = with_fingerprints(published, document)
    write(published, manifest__json=document)
    artifact = load_artifact(published)
    assert artifact.spec == found.spec
    assert not artifact.is_own
    assert artifact.manifest["fingerprints"] == fingerprints(artifact)
    assert not artifact.alone
    artifact.verify("fp32")
    (published / "tokenizer.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ModelFileError, match=r"tokenizer\.json has 2 bytes"):
        artifact.verify("fp32")
