"""OpenAI's vocabulary `cl100k_base`: from token ids back to the text that they spell.

LangChain and others tokenize for OpenAI's models before they call, so what arrives is ids of a
vocabulary that the served model does not have. They are only read if they are exactly what
OpenAI's tokenizer makes of the text they spell: ids of another vocabulary hardly ever are.
Source: `tiktoken_ext/openai_public.py` of https://github.com/openai/tiktoken (0.14.0).

It must never guess, and never be loaded before it is needed (13 MB, some 40 ms).
"""

from __future__ import annotations

import logging
import zlib
from functools import cache, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import EmbedError
from cortex_embed.onefile import start

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tokenizers.pre_tokenizers import PreTokenizer

NAME = "cl100k_base"
SIZE = 100_256
"""How many byte tokens there are. Ids above are marks such as <|endoftext|>, which are no text."""
FILE = Path(__file__).resolve().parent.parent / "vocabularies" / f"{NAME}.zlib"

MAX_BYTES = 1_000_000
"""Of one text: a few ids can spell very much (a token of 128 spaces)."""
_BORDER = 4
_CERTAIN = 16
"""Clients cut long texts at any id. So of `_CERTAIN` or more ids, the first and the last
`_BORDER` may be what the whole text made of them: half a character, half a word."""

# What tiktoken's pattern matches, without its possessive quantifiers: the regular expressions
# of `tokenizers` (Oniguruma) take `{1,3}+` for a repetition.
_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

log = logging.getLogger(__name__)


class NotCl100kError(Exception):
    """These ids are not what OpenAI's tokenizer makes of a text; says why, as a clause."""


def pack(tokens: Sequence[bytes]) -> bytes:
    """The file's format: the length of each token in a byte, then all tokens; deflated."""
    return zlib.compress(bytes(map(len, tokens)) + b"".join(tokens), 9)


def unpack(packed: bytes) -> list[bytes]:
    """The inverse of `pack`. Raises ValueError unless it is `SIZE` tokens."""
    try:
        raw = zlib.decompress(packed)
    except zlib.error as why:
        raise ValueError(f"not deflated: {why}") from None
    lengths, data = raw[:SIZE], raw[SIZE:]
    if len(lengths) != SIZE or sum(lengths) != len(data):
        raise ValueError(f"not {SIZE} tokens")
    return [data[end - size : end] for size, end in zip(lengths, accumulate(lengths), strict=True)]


@cache
def cl100k() -> Cl100k | None:
    """The vocabulary that travels with us; None where it does not. Call it in a thread."""
    try:
        packed = start.carried(start.VOCABULARIES, FILE.name)
        return Cl100k(unpack(FILE.read_bytes() if packed is None else packed))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EmbedError) as why:
        log.warning("the vocabulary %s cannot be read (%s): its ids are refused", NAME, why)
        return None


class Cl100k:
    """`tokens` in the order of their ids, which is also the order in which BPE merges."""

    def __init__(self, tokens: list[bytes]) -> None:
        from tokenizers import Regex
        from tokenizers.pre_tokenizers import Split

        self._tokens = tokens
        self._ranks = {token: rank for rank, token in enumerate(tokens)}
        self._split: PreTokenizer = Split(Regex(_PATTERN), behavior="isolated")
        # Bounded: a caller chooses the pairs. A natural text has some thousands.
        self._stay_apart = lru_cache(maxsize=2**15)(self._merged_apart)

    def text(self, ids: Sequence[int]) -> str:
        """The text that `ids` spell. Half a character at either end becomes U+FFFD.

        In time linear in what they spell. Raises NotCl100kError.
        """
        if not all(0 <= token < SIZE for token in ids):
            raise NotCl100kError("some are outside that vocabulary")
        spelled = [self._tokens[token] for token in ids]
        size = sum(map(len, spelled))
        if size > MAX_BYTES:
            raise NotCl100kError(f"they spell {size} bytes, the limit is {MAX_BYTES}")
        data = b"".join(spelled)
        begin, end = _whole_characters(data)
        cut = len(ids) >= _CERTAIN
        if not cut and end - begin != size:
            raise NotCl100kError("they do not spell UTF-8")
        try:
            whole = data[begin:end].decode("utf-8")
        except UnicodeDecodeError:
            raise NotCl100kError("they do not spell UTF-8") from None
        if "\0" in whole:
            raise NotCl100kError("they spell NUL (U+0000), which is no text")
        self._refuse_uncanonical(ids, spelled, whole, begin, cut=cut)
        return "\ufffd" * begin + whole + "\ufffd" * (end < size)

    def _refuse_uncanonical(
        self, ids: Sequence[int], spelled: list[bytes], whole: str, begin: int, *, cut: bool
    ) -> None:
        """Compare with what the tokenizer does: split by the pattern, then merge by rank.

        A pre-token is merged as given if each two neighbours in it would stay apart: where a
        merge of the whole first crosses a border, it crosses that border of the pair as well.
        """
        low, high = (_BORDER, len(ids) - _BORDER) if cut else (0, len(ids))
        borders = self._borders(whole, begin)
        at, border = 0, next(borders)
        for index, token in enumerate(spelled):
            while border < at:
                border = next(borders)
            inside = border > at
            # A border that falls into this token, or a neighbour that would have joined it.
            while border <= at:
                border = next(borders)
            fault = border < at + len(token) or (
                inside and index > 0 and not self._stay_apart(ids[index - 1], ids[index])
            )
            if fault and low <= index < high:
                raise NotCl100kError("OpenAI's tokenizer gives other ids for the text they spell")
            at += len(token)

    def _borders(self, whole: str, begin: int) -> Iterator[int]:
        """Where the pre-tokens begin, in bytes, and at last a place behind the end."""
        at = begin
        for piece, _ in self._split.pre_tokenize_str(whole):
            yield at
            at += len(piece.encode("utf-8"))
        yield at
        while True:
            yield 2**62

    def _merged_apart(self, left: int, right: int) -> bool:
        """Whether BPE leaves the border between two tokens alone."""
        first, second = self._tokens[left], self._tokens[right]
        return self._merge(first + second) == [first, second]

    def _merge(self, data: bytes) -> list[bytes]:
        """Byte-pair encoding: the pair of lowest rank first, the leftmost of equal ones."""
        parts = [data[i : i + 1] for i in range(len(data))]
        none = SIZE
        ranks = [self._ranks.get(a + b, none) for a, b in pairwise(parts)]
        while ranks and (lowest := min(ranks)) < none:
            at = ranks.index(lowest)
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
            del ranks[at]
            if at < len(ranks):
                ranks[at] = self._ranks.get(parts[at] + parts[at + 1], none)
            if at:
                ranks[at - 1] = self._ranks.get(parts[at - 1] + parts[at], none)
        return parts


def _whole_characters(data: bytes) -> tuple[int, int]:
    """`data` without half a character at its ends, as a range; the inside may be anything."""
    begin, end = 0, len(data)
    while begin < min(3, end) and data[begin] & 0xC0 == 0x80:
        begin += 1
    for back in range(1, min(3, end - begin) + 1):
        byte = data[end - back]
        if byte & 0xC0 == 0x80:
            continue
        if back < (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0) + 1:
            end -= back
        break
    return begin, end
