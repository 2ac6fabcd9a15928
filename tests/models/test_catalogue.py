"""The catalogue: what is in it, how a name finds it, and that a malformed one is refused."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

from cortex_embed.errors import ModelFileError, UsageError
from cortex_embed.models.catalogue import (
    DEFAULT_MODEL_ID,
    SOURCES,
    CatalogueEntry,
    catalogue,
    find,
    known,
    parse,
)

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
def test_every_entry_can_be_used_or_says_why_not(model: CatalogueEntry) -> None:
    assert re.fullmatch(r"[0-9a-f]{40}", model.spec.revision)
    assert bool(model.run_files) != bool(model.unavailable)
    if model.run_files:
        names = [file.name for file in model.run_files]
        assert len(names) == len(set(names)) >= 3  # they lie side by side
        known = all(file.size for file in model.run_files)
        assert model.download_bytes > 10**7 or not known
    for file in model.files:
        assert (file.sha256 != "") == (file.evidence >= 2), file.path
    assert {file.path for file in model.source_files} in (set(), set(SOURCES))


def test_the_models_that_we_export_are_pinned() -> None:
    ours = {model.spec.id for model in catalogue() if model.source_files}
    assert {"all-minilm-l6-v2", "bge-small-en-v1.5", "bge-m3", "nomic-embed-text-v1.5"} <= ours
    for name in ours:
        weights = next(f for f in entry(name).source_files if f.path == "model.safetensors")
        assert weights.sha256


def test_the_required_models_are_there() -> None:
    wanted = {
        "bge-small-en-v1.5", "bge-base-en-v1.5", "bge-large-en-v1.5", "bge-m3",
        "all-minilm-l6-v2", "all-mpnet-base-v2", "multilingual-e5-small", "multilingual-e5-base",
        "e5-small-v2", "nomic-embed-text-v1.5", "mxbai-embed-large-v1",
        "snowflake-arctic-embed-xs", "snowflake-arctic-embed-s", "gte-small",
        "gte-multilingual-base", "jina-embeddings-v2-base-code", "qwen3-embedding-0.6b",
        "embeddinggemma-300m", "codebert-base",
    }  # fmt: skip
    assert wanted <= {model.spec.id for model in catalogue()}


def test_what_has_to_be_accepted_is_told() -> None:
    assert "Gemma" in entry("embeddinggemma").terms
    assert "pickle" in entry("codebert-base").unavailable
    assert entry("qwen3-embedding").alone


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("schema = 1", "schema = 2", "schema 2, this version reads 1"),
        ("schema = 1", "", "`schema` is missing"),
        ('pooling = "mean"', 'pooling = "max"', "`pooling` is 'max', must be one of cls, mean"),
        ("max_tokens = 256", "max_tokens = 0", "`max_tokens` must be at least 1"),
        ("normalize = true", 'normalize = "yes"', "`normalize` must be true or false"),
        ('family = "bert"', "", "the key `family` is missing"),
        ('onnx = ["onnx/model.onnx"]', "onnx = []", "`onnx` must name a graph"),
        ('path = "onnx/model.onnx"', 'path = "other"', "`files` must hold onnx/model.onnx"),
        ("evidence = 4", "evidence = 1", "`evidence` must be at least 2"),
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


def own(path: Path, text: str) -> Path:
    path.write_text("schema = 1\n" + text, encoding="utf-8")
    return path


MINE = """
[[model]]
id = "mine"
repo = "me/mine"
revision = "main"
aliases = ["my-own"]
licence = "mit"
family = "bert"
layers = 1
hidden = 8
dimensions = 8
max_tokens = 16
pooling = "mean"
normalize = true
query_prefix = ""
document_prefix = ""
matryoshka = []
onnx = ["model.onnx"]
files = [{path = "model.onnx"}, {path = "tokenizer.json"}, {path = "config.json"}]
"""


def test_a_catalogue_of_ones_own_adds_to_ours(tmp_path: Path) -> None:
    path = own(tmp_path / "mine.toml", MINE)
    assert known(path)[:-1] == catalogue()
    mine = find("MY-OWN", path)
    assert mine is not None
    assert (mine.spec.id, mine.is_pinned, mine.is_sized) == ("mine", False, False)
    assert find("my-own") is None
    assert find("bge-small", path) == find("bge-small")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"mine"', '"bge-m3"', "'bge-m3' names both bge-m3 and bge-m3"),
        ('"my-own"', '"bge-small"', "names both"),
        ("layers = 1", "", "the key `layers` is missing"),
        ('"model.onnx"}', '"model.onnx", sha256 = "x"}', "64 lower-case"),
        ("[[model]]", "[[model]", "is not valid TOML"),
        ('{path = "config.json"}', "", "`files` must hold config.json"),
    ],
)
def test_what_is_wrong_with_ones_own_names_the_file(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    path = own(tmp_path / "mine.toml", MINE.replace(old, new, 1))
    with pytest.raises(UsageError) as caught:
        known(path)
    assert str(path) in caught.value.message
    assert words in caught.value.message
    assert "The package is damaged" not in caught.value.message
