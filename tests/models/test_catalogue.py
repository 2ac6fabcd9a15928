"""The catalogue: what is in it, how a name finds it, and that a malformed one is refused."""

from __future__ import annotations

from importlib.resources import files

import pytest

from cortex_embed.errors import ModelFileError
from cortex_embed.models.catalogue import DEFAULT_MODEL_ID, CatalogueEntry, catalogue, find, parse

TOML = files("cortex_embed.models").joinpath("catalogue.toml").read_text("utf-8")


def entry(name: str) -> CatalogueEntry:
    found = find(name)
    assert found is not None
    return found


def test_minilm_is_mean_pooled_with_256_tokens_and_no_prefix() -> None:
    spec = entry("all-minilm-l6-v2").spec
    assert (spec.pooling, spec.max_tokens, spec.dimensions) == ("mean", 256, 384)
    assert spec.prefix("query") == spec.prefix("document") == ""


def test_bge_small_is_cls_pooled_with_512_tokens_and_a_query_prefix() -> None:
    spec = entry("bge-small-en-v1.5").spec
    assert (spec.pooling, spec.max_tokens, spec.dimensions) == ("cls", 512, 384)
    assert spec.prefix("query") == "Represent this sentence for searching relevant passages: "
    assert spec.prefix("document") == ""


@pytest.mark.parametrize(
    "name",
    [
        "all-minilm-l6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
        "ALL-MINILM",
        "all-minilm:l6-v2",
        "all-minilm:latest",
    ],
)
def test_every_name_of_a_model_finds_it(name: str) -> None:
    assert entry(name).spec.id == "all-minilm-l6-v2"


@pytest.mark.parametrize(
    "name", ["", "minilm", "bge-small-en", "all-minilm-l6-v2 ", "../bge-small"]
)
def test_other_names_find_nothing(name: str) -> None:
    assert find(name) is None


def test_the_default_model_is_in_it() -> None:
    assert find(DEFAULT_MODEL_ID) is not None


@pytest.mark.parametrize("model", catalogue(), ids=lambda e: e.spec.id)
def test_every_source_file_is_pinned_by_independent_evidence(model: CatalogueEntry) -> None:
    assert {file.path for file in model.files} == {
        "model.safetensors",
        "tokenizer.json",
        "config.json",
    }
    assert all(file.evidence >= 2 for file in model.files)
    assert len(model.spec.revision) == 40
    assert model.goldens
    assert model.download_bytes > model.parameters * 4


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = 2", "schema 2, this version reads 1"),
        ("schema = 1", "", "`schema` is missing"),
        ('pooling = "mean"', 'pooling = "max"', "`pooling` is 'max', must be one of cls, mean"),
        ("max_tokens = 256", "max_tokens = 0", "`max_tokens` must be at least 1"),
        ("normalize = true", 'normalize = "yes"', "`normalize` must be true or false"),
        ('family = "bert"', "", "the key `family` is missing"),
        ("53aa5117", "53AA5117", "`sha256` must be 64 lower-case"),
        ('"bge-small"', '"all-minilm"', "'all-minilm' names both"),
        ("sums = [0.59605527, ", "sums = [", "`sums` has 3 values for 4 texts"),
        ("[[model]]", "[[model", "not valid TOML"),
    ],
)
def test_a_malformed_catalogue_names_the_fault(old: str, new: str, words: str) -> None:
    assert old in TOML
    with pytest.raises(ModelFileError) as caught:
        parse(TOML.replace(old, new, 1))
    assert "catalogue.toml" in caught.value.message
    assert words in caught.value.message


def test_the_fault_is_placed() -> None:
    with pytest.raises(ModelFileError, match=r"catalogue\.toml: model\[1\]"):
        parse(TOML.replace("layers = 12", "layers = -1"))
