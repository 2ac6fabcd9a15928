"""Four spellings of one intent, and the word that a client says for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import InvalidRequestError
from cortex_embed.wire.intents import COHERE, JINA, TEI, VOYAGE, choices, intent, truncate, word_for

if TYPE_CHECKING:
    from cortex_embed.domain import InputType
    from cortex_embed.wire.intents import Intents

TABLES = [TEI, COHERE, VOYAGE, JINA]


@pytest.mark.parametrize(
    ("table", "query", "document"),
    [
        (TEI, ["query"], ["document", "passage"]),
        (COHERE, ["search_query"], ["search_document"]),
        (VOYAGE, ["query"], ["document", "passage"]),
        (JINA, ["retrieval.query"], ["retrieval.passage"]),
    ],
)
def test_the_words_of_each_vendor(table: Intents, query: list[str], document: list[str]) -> None:
    assert [word for word, meant in table.items() if meant == "query"] == query
    assert [word for word, meant in table.items() if meant == "document"] == document
    for word in table:
        assert intent(table, word, "f") == table[word]
    assert intent(table, None, "f") is None


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("wanted", [None, "query", "document"])
def test_a_word_means_what_it_was_said_for(table: Intents, wanted: InputType | None) -> None:
    assert intent(table, word_for(table, wanted), "f") == wanted


def test_other_words_are_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        intent(VOYAGE, "search_query", "input_type")
    assert caught.value.param == "input_type"
    assert caught.value.message == (
        'input_type: got \'search_query\'; input_type must be "query", "document" or "passage".'
    )
    with pytest.raises(InvalidRequestError) as long:
        intent(JINA, "x" * 10_000, "task")
    assert len(long.value.message) < 300


@pytest.mark.parametrize(
    ("word", "end"),
    [("NONE", "none"), ("none", "none"), ("Start", "start"), ("END", "end"), (None, None)],
)
def test_truncate(word: str | None, end: str | None) -> None:
    assert truncate(word) == end


@pytest.mark.parametrize("word", ["", "LEFT", "END "])
def test_truncate_knows_three_words(word: str) -> None:
    with pytest.raises(InvalidRequestError, match='must be "NONE", "START" or "END"'):
        truncate(word)


def test_choices() -> None:
    assert choices(["a"]) == '"a"'
    assert choices(["a", "b"]) == '"a" or "b"'
    assert choices(["a", "b", "c"]) == '"a", "b" or "c"'
