"""The words in which each vendor says what a text is for, and how a long one is cut.

Inside there is one word, `query`, `document` or none; it selects the model's prefix. One
table for all, so that a new vendor is a row. It must never guess: a word that is in no
table is an error that lists those which are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from cortex_embed.domain import Truncate
from cortex_embed.errors import InvalidRequestError
from cortex_embed.wire.decoding import clip

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cortex_embed.domain import InputType

Intents = dict[str, "InputType | None"]

# The first word of an intent is the one that we say as a client.
TEI: Intents = {"query": "query", "document": "document", "passage": "document"}
COHERE: Intents = {
    "search_query": "query",
    "search_document": "document",
    "classification": None,
    "clustering": None,
}
# "passage" is NVIDIA NIM's word on the same path, which LiteLLM sends too.
VOYAGE: Intents = {"query": "query", "document": "document", "passage": "document"}
JINA: Intents = {
    "retrieval.query": "query",
    "retrieval.passage": "document",
    "text-matching": None,
    "classification": None,
    "separation": None,
    "clustering": None,
}

_ENDS: dict[str, Truncate] = {end: end for end in get_args(Truncate)}


def choices(words: Iterable[str]) -> str:
    """The words as a sentence has them: `"query", "document" or "passage"`."""
    *most, last = (f'"{word}"' for word in words)
    return f"{', '.join(most)} or {last}" if most else last


def intent(table: Mapping[str, InputType | None], word: str | None, field: str) -> InputType | None:
    """What `word` means; None where nothing is said. Raises InvalidRequestError."""
    if word is None:
        return None
    if word not in table:
        raise _unknown(field, word, table)
    return table[word]


def word_for(table: Mapping[str, InputType | None], wanted: InputType | None) -> str | None:
    """What a client says for `wanted`; None, to leave the field out, where no intent is stated."""
    if wanted is None:
        return None
    return next(word for word, meant in table.items() if meant == wanted)


def truncate(word: str | None, field: str = "truncate") -> Truncate | None:
    """Cohere's and NVIDIA's NONE, START and END, in any letter case.

    None where nothing is said: the server's own policy. Raises InvalidRequestError.
    """
    if word is None:
        return None
    if word.lower() not in _ENDS:
        raise _unknown(field, word, ("NONE", "START", "END"))
    return _ENDS[word.lower()]


def _unknown(field: str, word: str, words: Iterable[str]) -> InvalidRequestError:
    return InvalidRequestError(
        f"{field}: got {clip(word)!r}; {field} must be {choices(words)}.", param=field
    )
