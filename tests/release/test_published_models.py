"""Every family that runs on a graph of others has its row, tiny and real."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer

from cortex_embed.errors import UsageError
from cortex_embed.models.catalogue import catalogue
from make_families import largest_id
from parity_published import compared_texts, long_text
from published_models import PUBLICATIONS, REAL, Publication, chosen

NOT_IN_TRANSFORMERS = {"jina-bert-alibi"}


def test_every_family_of_the_catalogue_is_compared() -> None:
    families = {entry.spec.family for entry in catalogue()}
    assert {row.known.family for row in REAL} == families - NOT_IN_TRANSFORMERS


def test_every_pooling_and_both_kinds_of_output_are_compared() -> None:
    assert {row.known.pooling for row in REAL} == {"cls", "mean", "last_token"}
    assert {row.output for row in REAL} == {"states", "both"}
    assert [row.id for row in REAL if row.cached] == ["qwen3-0.6b-cache"]


def test_a_real_row_has_the_geometry_of_the_catalogue() -> None:
    entries = {entry.spec.id: entry for entry in catalogue()}
    for row in REAL:
        entry = entries[row.like]
        assert row.config["num_hidden_layers"] == entry.layers
        assert row.config["hidden_size"] == entry.hidden
        assert row.max_tokens == entry.spec.max_tokens
        assert row.longest <= row.max_tokens


@pytest.mark.parametrize("row", PUBLICATIONS, ids=lambda row: row.id)
def test_its_vocabulary_holds_its_tokenizers_ids(row: Publication) -> None:
    made = row.tokenizer()
    assert largest_id(made) < row.config["vocab_size"]
    assert row.is_tiny is row.id.startswith("tiny-")
    assert max(row.max_tokens, row.longest) <= row.config["max_position_embeddings"]


@pytest.mark.parametrize("row", PUBLICATIONS, ids=lambda row: row.id)
def test_texts_are_of_one_token_and_up(
    row: Publication, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp(row.id) / "tokenizer.json"
    tokenizer = Tokenizer.from_buffer(json.dumps(row.tokenizer()).encode())
    tokenizer.no_truncation()
    tokenizer.save(str(file))
    special = len(tokenizer.encode("").ids)
    lengths = {len(tokenizer.encode(text).ids) - special for text in compared_texts(row, file)}
    assert 1 in lengths
    assert len(lengths) >= 10
    assert len(tokenizer.encode(long_text(row)).ids) >= row.longest


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(UsageError, match="There is no published model 'gpt'"):
        chosen("gpt")
    assert [row.id for row in chosen("tiny-e5")] == ["tiny-e5-small-v2"]
