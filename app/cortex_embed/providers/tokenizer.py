"""Text to token ids: prefix, truncation with counts, and nothing silent.

A caller's own ids are taken as they are; ids of OpenAI's vocabulary become their text first
(`cl100k`), and any others are refused.

Truncation is ours: tokenizer files carry limits of their own (MiniLM's says 128 where the
model's is 256), so the file's truncation and padding are switched off. This module must
never drop a token without counting it.
"""

from __future__ import annotations

from math import log2
from typing import TYPE_CHECKING

import msgspec

from cortex_embed.domain import OpenAIIds, Token
from cortex_embed.errors import TOO_LONG, ModelFileError, TextError
from cortex_embed.providers import cl100k
from cortex_embed.providers.words import Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from tokenizers import Tokenizer as HfTokenizer

    from cortex_embed.domain import Text, Truncate

    Ids = NDArray[np.int64]

_PIECE_CHARS = 50_000
"""A longer text is tokenized in pieces: an encoding holds some 100 bytes per token, and
only the piece that is kept need exist beyond its count."""
_FEW_CHARS = 2_000
"""Up to so many characters in all, texts are tokenized by the word: 0.4 ms at the most, and 1.5 of
words that were not seen before."""
_TELLING = 64
"""So many ids are looked at to tell whose they are."""
_OWN_BEYOND_CHANCE = 6
"""So many ids that this model's tokenizer could have made are its own, whatever else they spell.
Of 62,000 pieces of English and code in 6 to 12 of OpenAI's ids, 58 could be MiniLM's as well: those
are refused, and the caller knows. By frequency, 15 of 55,000 in its own were read as OpenAI's:
nobody would know."""


class Encoded(msgspec.Struct, frozen=True):
    """`ids` int64 [used], special tokens included; `tokens` the count before truncation.

    `read_as` is the vocabulary that a caller's ids were read in, if it is not this model's.
    """

    ids: Ids
    tokens: int
    read_as: str | None = None


def pieces(text: str, limit: int = _PIECE_CHARS) -> Iterator[str]:
    """Cut before whitespace, where no tokenizer joins; a run without any stays whole."""
    start = 0
    while len(text) - start > limit:
        end = start + limit
        while end < len(text) and not text[end].isspace():
            end += 1
        yield text[start:end]
        start = end
    if start < len(text) or not text:
        yield text[start:]


class Tokenizer:
    """The model's own tokenizer (HF tokenizers), with the catalogue's limit."""

    def __init__(self, file: Path, *, max_tokens: int) -> None:
        """Raises ModelFileError for a file that is no tokenizer."""
        from tokenizers import Tokenizer as HfTokenizer

        try:
            self._hf: HfTokenizer = HfTokenizer.from_file(str(file))
        except Exception as why:  # the binding raises bare Exception
            raise ModelFileError(f"{file} is not a tokenizer: {why}.") from None
        self._hf.no_truncation()
        self._hf.no_padding()
        self.max_tokens = max_tokens
        self.vocab_size = self._hf.get_vocab_size(with_added_tokens=True)
        self._head, self._tail = self._special_tokens()
        self._words = Words.of(self._hf)

    def _special_tokens(self) -> tuple[list[int], list[int]]:
        """The ids that the post-processor puts before and after a text, found with a probe."""
        probe = self._hf.encode("a", add_special_tokens=False).ids
        whole = self._hf.encode("a", add_special_tokens=True).ids
        for at in range(len(whole) - len(probe) + 1):
            if whole[at : at + len(probe)] == probe:
                return whole[:at], whole[at + len(probe) :]
        return [], []

    def encode(self, texts: Sequence[Text], *, prefix: str, truncate: Truncate) -> list[Encoded]:
        """One `Encoded` per text. Raises TextError with the index of the text.

        Of many characters (_FEW_CHARS) it holds no lock of the interpreter while it tokenizes; safe
        to call from any thread.
        """
        read = [self._read(index, text) for index, text in enumerate(texts)]
        strings = [prefix + text for text in read if isinstance(text, str)]
        contents = iter(self._contents(strings, truncate))
        encoded = []
        for index, text in enumerate(read):
            if isinstance(text, str):
                content, total = next(contents)
            else:
                content = self._content_of_ids(index, text, prefix)
                total = len(content)
            read_as = None if text is texts[index] else cl100k.NAME
            encoded.append(self._finish(index, content, total, truncate, read_as))
        return encoded

    def short(self, texts: Sequence[str], *, prefix: str) -> list[Ids] | None:
        """The ids of each text, as `encode` has them; None if it has more to say of one."""
        import numpy as np

        words, head, tail = self._words, self._head, self._tail
        room = self.max_tokens - len(head) - len(tail)
        found = []
        for text in texts:
            content = words.ids(prefix + text) if words is not None else None
            if content is None:
                content = self._bare_ids(prefix + text)
            if not 0 < len(content) <= room:
                return None
            found.append(np.array([*head, *content, *tail], dtype=np.int64))
        return found

    def _read(self, index: int, text: Text) -> Text:
        """The text of a caller's ids of OpenAI's vocabulary; everything else as it is.

        Raises TextError for ids that are neither OpenAI's nor, with their special tokens, this
        model's: they would give a well-formed vector of nothing.
        """
        if isinstance(text, str) or self._has_special_tokens(text):
            return text
        problem = "this installation carries no other vocabulary"
        vocabulary = cl100k.cl100k()
        if vocabulary is not None:
            try:
                spelled = vocabulary.text(text)
            except cl100k.NotCl100kError as why:
                problem = f"nor are they OpenAI's {cl100k.NAME}: {why}"
            else:
                if isinstance(text, OpenAIIds) or not self._could_be_own(text, spelled):
                    return spelled
                problem = "they could be its own without them, and could be another's"
        raise TextError(
            index,
            "these token ids are not certain to be of this model's vocabulary: its special tokens "
            f"are not at their ends, and {problem}. {self._way_out()}",
        )

    def _has_special_tokens(self, ids: tuple[int, ...]) -> bool:
        head, tail = len(self._head), len(self._tail)
        return (
            0 < head + tail <= len(ids)
            and list(ids[:head]) == self._head
            and list(ids[len(ids) - tail :]) == self._tail
        )

    def _could_be_own(self, ids: tuple[int, ...], spelled: str) -> bool:
        """Whether `ids` are as likely this model's without special tokens as OpenAI's.

        Only if its tokenizer makes them of some text. Of a few ids, that text must be less usual
        than the one that they spell for OpenAI: a vocabulary is ordered by frequency, roughly, so
        ranks are a measure of that (Zipf's law).
        """
        first = list(ids[:_TELLING])
        if max(first) >= self.vocab_size:
            return False
        own = self._hf.decode(first, skip_special_tokens=False)
        if self._bare_ids(own) != first:
            return False
        if len(first) >= _OWN_BEYOND_CHANCE:
            return True
        return _surprise(self._bare_ids(spelled)) >= _surprise(first)

    def _bare_ids(self, string: str) -> list[int]:
        ids: list[int] = self._hf.encode(string, add_special_tokens=False).ids
        return ids

    def _contents(self, strings: list[str], truncate: Truncate) -> list[tuple[list[int], int]]:
        """Ids without special tokens, and how many there were in all."""
        contents = []
        known = self._known(strings)
        short = [s for s in strings if s not in known and len(s) <= _PIECE_CHARS]
        batch = iter(self._hf.encode_batch_fast(short, add_special_tokens=False) if short else ())
        for string in strings:
            if string in known:
                contents.append((known[string], len(known[string])))
            elif len(string) <= _PIECE_CHARS:
                ids = next(batch).ids
                contents.append((ids, len(ids)))
            else:
                contents.append(self._content_of_long(string, truncate))
        return contents

    def _known(self, strings: list[str]) -> dict[str, list[int]]:
        """The ids of those that can be had by the word, if they are few: that is the faster way,
        and keeps the interpreter's lock, which other threads need when they are many."""
        if self._words is None or sum(map(len, strings)) > _FEW_CHARS:
            return {}
        found = ((string, self._words.ids(string)) for string in strings)
        return {string: ids for string, ids in found if ids is not None}

    def _content_of_long(self, string: str, truncate: Truncate) -> tuple[list[int], int]:
        kept: list[int] = []
        total = 0
        for piece in pieces(string):
            ids = self._hf.encode_batch_fast([piece], add_special_tokens=False)[0].ids
            total += len(ids)
            if truncate == "start":
                kept = (kept + ids)[-self.max_tokens :]
            elif len(kept) < self.max_tokens:
                kept = (kept + ids)[: self.max_tokens]
        return kept, total

    def _content_of_ids(self, index: int, ids: tuple[int, ...], prefix: str) -> list[int]:
        """A caller's own token ids, stripped of their special tokens. Raises TextError."""
        for position, token in enumerate(ids):
            if not 0 <= token < self.vocab_size:
                raise TextError(
                    index,
                    f"token id {token} at position {position} is outside this model's vocabulary "
                    f"of {self.vocab_size}. {self._way_out()}",
                )
        if prefix:
            raise TextError(
                index, "token ids cannot take this model's prefix for the stated input type. "
                "Send the text as a string, or state no input type.",
            )  # fmt: skip
        return list(ids[len(self._head) : len(ids) - len(self._tail)])

    def _way_out(self) -> str:
        return (
            "Send the text as a string (LangChain: check_embedding_ctx_length=False), or ids made "
            f"by this model's tokenizer, special tokens included ({self._example()})."
        )

    def _example(self) -> str:
        names = [self._hf.id_to_token(i) or str(i) for i in (*self._head, *self._tail)]
        return " … ".join(names) if names else "it has no special tokens"

    def tokens(self, texts: Sequence[str], *, prefix: str, special: bool) -> list[list[Token]]:
        """See `domain.Provider.tokenize`. Safe to call from any thread."""
        whole = [prefix + text for text in texts]
        encodings = self._hf.encode_batch(whole, add_special_tokens=special)
        return [
            [
                Token(id_, word, special=True)
                if is_special
                else Token(id_, text[start:stop], special=False, start=start, stop=stop)
                for id_, word, is_special, (start, stop) in zip(
                    one.ids, one.tokens, one.special_tokens_mask, one.offsets, strict=True
                )
            ]
            for text, one in zip(whole, encodings, strict=True)
        ]

    def texts(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        """See `domain.Provider.detokenize`. Raises TextError."""
        for index, one in enumerate(ids):
            for position, token in enumerate(one):
                if not 0 <= token < self.vocab_size:
                    raise TextError(
                        index,
                        f"token id {token} at position {position} is outside this model's "
                        f"vocabulary of {self.vocab_size}.",
                    )
        return self._hf.decode_batch([list(one) for one in ids], skip_special_tokens=skip_special)

    def _finish(
        self, index: int, content: list[int], total: int, truncate: Truncate, read_as: str | None
    ) -> Encoded:
        import numpy as np

        special = len(self._head) + len(self._tail)
        room = self.max_tokens - special
        if total + special == 0:  # nothing to compute on, and nobody could pool it
            raise TextError(
                index,
                "nothing is left of the text in this model's tokens (white space alone, say). "
                "Leave it out, or send a text.",
            )
        if total > room:
            if truncate == "none":
                raise TextError(
                    index,
                    f"the text has {total + special} tokens; this model reads at most "
                    f"{self.max_tokens}. Shorten it, or ask for truncation.",
                    code=TOO_LONG,
                )
            content = content[-room:] if truncate == "start" else content[:room]
        ids = np.array([*self._head, *content, *self._tail], dtype=np.int64)
        return Encoded(ids=ids, tokens=total + special, read_as=read_as)


def _surprise(ids: Sequence[int]) -> float:
    """Bits that the ids take, if an id is as likely as one over its rank."""
    return sum(log2(token + 1) for token in ids)
