"""Texts to compare vectors on: every length up to a limit and beyond, and awkward characters.

They must be the same on every run and machine, since golden vectors are made of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = """
the quick brown fox and lazy dog sat on a mat while children read some text about how people search
for words often through land air water and time
""".split()  # noqa: SIM905 - prose is easier to read than a list

PLAIN = (
    "hello world",
    "a",
    "What is the capital of France?",
    "The quick brown fox jumps over the lazy dog.",
    "def embed(texts: list[str]) -> NDArray[np.float32]:  # shape [n, d]",
    (
        "Word by word a text is read.\nWhat each word means, its neighbours say;\r\nand texts that "
        "mean the same lie close together, even where they share no word (nor a language)."
    ),
    "Äpfel, naïve café; 東京は日本の首都です。 Привет, мир! مرحبا 🙂 e\u0301",
)

SPECIAL = "<s> special <pad> tokens <pad> <unk> of other <mask> vocabularies </s> as text"
"""RoBERTa counts no place for a padding token, wherever it stands."""

AWKWARD = (
    "   leading, trailing and \t\n inner   white space   ",
    "ALL CAPITALS AND MiXeD cAsE",
    "1234567890 3.14159 -42 $19.99 50%",
    "https://example.com/a/b?c=d&e=f#g user@example.com",
    "नमस्ते दुनिया",
    "안녕하세요 세계",
    "\u200b\u200dzero\u200bwidth\ufeff",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "[CLS] [SEP] [MASK] [UNK] special tokens as text",
    SPECIAL,
    "supercalifragilisticexpialidocious" * 4,
    "!?!?...;;;",
)


def filler(words: int, start: int = 0) -> str:
    """That many plain English words, each one token of any English WordPiece vocabulary."""
    return " ".join(_WORDS[(start + i) % len(_WORDS)] for i in range(words))


def golden_texts(max_tokens: int) -> list[str]:
    """A few varied texts; the last one is over the limit."""
    return [*PLAIN, filler(max_tokens + max_tokens // 4)]


def texts_up_to(tokenizer: Path, max_tokens: int) -> list[str]:
    """Texts from one token to over twice `max_tokens`, dense around powers of two and the limit.

    Raises ValueError if the vocabulary splits a filler word: lengths would not be exact.
    """
    from tokenizers import Tokenizer

    loaded = Tokenizer.from_file(str(tokenizer))
    if split := [w for w in _WORDS if len(loaded.encode(w, add_special_tokens=False).ids) != 1]:
        raise ValueError(f"{tokenizer} splits {split}")
    room = max_tokens - 2  # [CLS] and [SEP]
    near = {2**k + d for k in range(10) for d in (-1, 0, 1)} | {room - 1, room, room + 1}
    lengths = [*sorted({n for n in near if 1 <= n <= room + 1}), 2 * max_tokens + 7]
    return [*PLAIN, *AWKWARD, *(filler(n, start=n) for n in lengths)]
