"""The ids of plain English, several times as fast: word by word, each word asked for once.

A BERT tokenizer cuts a text into words before it looks any of them up, and so no word's tokens
depend on its neighbours (`BertNormalizer`, `BertPreTokenizer` and `WordPiece` of huggingface/
tokenizers). What that library does around the looking up, for any script, takes most of its time.
Here a text of printable ASCII is cut by the same rules, and the library's own model is asked for
what it has not said yet. It must never give other ids than the whole library would: any text, or
tokenizer, that these rules are not all of the truth for is left to it.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer as HfTokenizer
    from tokenizers.models import Model

_LONGEST = 24
"""Characters of a word that is remembered; a text with a longer one is left to the library."""
_REMEMBERED = 8192
"""Words: more than most people use, and 4 MB at the most (one of eight tokens takes 500 bytes)."""
# Of printable ASCII: what is neither letter, digit nor blank is punctuation, each by itself.
_WORDS = re.compile(r"[A-Za-z0-9]+|[^A-Za-z0-9 ]")
_BLANKS = str.maketrans("\t\n\r", "   ")


class Words:
    """Ids by the word; make it with `of`. Safe to call from any thread."""

    def __init__(self, model: Model, markers: frozenset[str], *, lowercase: bool) -> None:
        """`markers` are the characters that an added token begins with: it may hold several words,
        and is looked for in the text before that is cut."""
        self._markers = tuple(markers)
        self._lowercase = lowercase
        self._ids = lru_cache(_REMEMBERED)(partial(_look_up, model))

    @classmethod
    def of(cls, tokenizer: HfTokenizer) -> Words | None:
        """For a tokenizer of BERT's kind; None for any other."""
        from tokenizers.models import WordPiece
        from tokenizers.normalizers import BertNormalizer
        from tokenizers.pre_tokenizers import BertPreTokenizer

        model, normalizer = tokenizer.model, tokenizer.normalizer
        if not isinstance(model, WordPiece) or not isinstance(normalizer, BertNormalizer):
            return None
        if not isinstance(tokenizer.pre_tokenizer, BertPreTokenizer):
            return None
        added = [one.content for one in tokenizer.get_added_tokens_decoder().values()]
        markers = frozenset(content[:1] for content in added)
        if any(not marker or marker.isalnum() or marker.isspace() for marker in markers):
            return None  # a text may hold one anywhere
        return cls(model, markers, lowercase=normalizer.lowercase)

    def ids(self, text: str) -> list[int] | None:
        """Without special tokens; None for a text that the library has to be asked for."""
        if not text.isascii():
            return None
        if not text.isprintable():
            text = text.translate(_BLANKS)
            if not text.isprintable():
                return None
        for marker in self._markers:  # `any` takes as long as the rest
            if marker in text:
                return None
        words = _WORDS.findall(text.lower() if self._lowercase else text)
        if max(map(len, words), default=0) > _LONGEST:
            return None
        return [*chain.from_iterable(map(self._ids, words))]


def _look_up(model: Model, word: str) -> tuple[int, ...]:
    return tuple(token.id for token in model.tokenize(word))
