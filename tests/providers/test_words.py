"""Ids by the word are the library's ids: of any text, or they are not given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, WordPiece
from tokenizers.normalizers import BertNormalizer, Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer, Whitespace

from cortex_embed.providers import tokenizer as tokenizers_of_ours
from cortex_embed.providers.words import _LONGEST, _REMEMBERED, Words
from quality_texts import quality_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cortex_embed.domain import Truncate
    from cortex_embed.models.artifact import Artifact

VOCABULARY = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "##aff", "##able", "##a", "##b", "a", "b",
    "A", "##A", "1", "##1", "x", "##x", ".", ",", "-", "'", "(", "~", "`", "^", "<", "##.",
]  # fmt: skip


def bert(*, lowercase: bool = True, **normalizer: Any) -> Tokenizer:
    vocabulary = {word: number for number, word in enumerate(VOCABULARY)}
    made = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=20))
    made.normalizer = BertNormalizer(lowercase=lowercase, **normalizer)
    made.pre_tokenizer = BertPreTokenizer()
    made.add_special_tokens(VOCABULARY[:5])
    return made


def words_of(tokenizer: Tokenizer) -> Words:
    words = Words.of(tokenizer)
    assert words is not None
    return words


def library(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def disagreements(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[list[str], int]:
    """Texts of which the ids differ, and how many were left to the library."""
    words = words_of(tokenizer)
    found = [(text, words.ids(text)) for text in texts]
    wrong = [text for text, ids in found if ids is not None and ids != library(tokenizer, text)]
    return wrong, sum(ids is None for _, ids in found)


TINY = {
    "lowercase": bert(),
    "cased": bert(lowercase=False),
    "accents kept": bert(strip_accents=False),
    "uncleaned": bert(clean_text=False, handle_chinese_chars=False),
}
ASCII = st.text(st.sampled_from([chr(n) for n in range(128)]), max_size=60)
WORDY = st.lists(
    st.sampled_from(["un", "aff", "able", "A", "b", "1", "x" * 19, "x" * 21, " ", "\t", "\n", "\r",
                     "\x0b", "\x0c", "\x1f", "\x7f", "\0", "[", "[CLS]", "[cls]", "]", ".", "-",
                     "~", "`", "é", "\u00a0", "中", "\u200b"]),
    max_size=14,
).map("".join)  # fmt: skip


@pytest.mark.parametrize("kind", TINY)
@settings(deadline=None, max_examples=300)
@given(text=st.one_of(ASCII, WORDY, st.text(max_size=40)))
def test_ids_are_the_librarys(kind: str, text: str) -> None:
    found = words_of(TINY[kind]).ids(text)
    assert found in (None, library(TINY[kind], text))


@pytest.mark.real
@settings(deadline=None, max_examples=300)
@given(text=st.one_of(ASCII, WORDY))
def test_ids_are_the_librarys_with_a_real_vocabulary(text: str, minilm_artifact: Artifact) -> None:
    tokenizer = real(minilm_artifact)
    found = words_of(tokenizer).ids(text)
    assert found in (None, library(tokenizer, text))


_REAL: dict[str, Tokenizer] = {}


def real(artifact: Artifact) -> Tokenizer:
    name = str(artifact.tokenizer)
    if name not in _REAL:
        _REAL[name] = Tokenizer.from_file(name)
        _REAL[name].no_truncation()
        _REAL[name].no_padding()
    return _REAL[name]


@pytest.mark.real
def test_what_people_write_is_seldom_left_to_the_library(minilm_artifact: Artifact) -> None:
    texts = quality_texts(2000)
    texts += [sentence for text in texts for sentence in text.split(". ")]
    wrong, left = disagreements(real(minilm_artifact), texts)
    assert wrong == []
    assert len(texts) > 4000
    assert left < len(texts) / 10


def test_every_character_is_cut_as_the_library_cuts_it() -> None:
    for tokenizer in TINY.values():
        texts = [f"a{chr(one)}b" for one in range(0x250)]
        wrong, left = disagreements(tokenizer, texts)
        assert wrong == []
        # Of ASCII all but the control characters and the one that added tokens begin with.
        assert len(texts) - left == 128 - 33 + 3 - 1


@pytest.mark.parametrize(
    "text", ["[CLS] a", "a [MASK]", "x[", "é", "a\0b", "a\x85b", "x" * (_LONGEST + 1)]
)
def test_what_is_left_to_the_library(text: str) -> None:
    assert words_of(bert()).ids(text) is None


def test_nothing_is_nothing() -> None:
    assert words_of(bert()).ids("") == words_of(bert()).ids(" \n\t ") == []


def test_a_normal_token_that_was_added_is_looked_for_as_well() -> None:
    tokenizer = bert()
    tokenizer.add_tokens([AddedToken("<a b>", normalized=True)])
    text = "x <a b>"
    assert words_of(tokenizer).ids(text) is None
    assert len(library(tokenizer, text)) == 2
    assert words_of(bert()).ids(text) == library(bert(), text)


def test_other_tokenizers_are_left_alone() -> None:
    lowercase, whitespace, bpe, letters = bert(), bert(), bert(), bert()
    lowercase.normalizer = Lowercase()
    whitespace.pre_tokenizer = Whitespace()
    bpe.model = BPE({"a": 0}, [])
    letters.add_tokens(["abc"])  # it may be anywhere in a word
    bare = Tokenizer(WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    for tokenizer in (lowercase, whitespace, bpe, letters, bare):
        assert Words.of(tokenizer) is None


def test_a_tokenizer_without_added_tokens_has_no_marker() -> None:
    made = Tokenizer(WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    assert words_of(made).ids("a [b") == library(made, "a [b") == [0, 1, 1]


def test_what_is_remembered_is_bounded() -> None:
    words = words_of(bert())
    for number in range(_REMEMBERED + 100):
        words.ids(f"a{number}")
    assert words._ids.cache_info().currsize == _REMEMBERED


@pytest.mark.real
def test_the_tokenizer_takes_them_for_few_texts_and_says_the_same(
    minilm_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tokenizers_of_ours.Tokenizer(minilm_artifact.tokenizer, max_tokens=32)
    texts = ["A question?", "Naïve", "word " * 40, "a [SEP] b", "A question?", "x" * 60]
    assert sum(map(len, texts)) < tokenizers_of_ours._FEW_CHARS
    asked: list[str] = []
    assert ours._words is not None
    by_word = ours._words.ids

    def noted(text: str) -> list[int] | None:
        asked.append(text)
        return by_word(text)

    monkeypatch.setattr(ours._words, "ids", noted)
    ends: tuple[Truncate, ...] = ("end", "start")
    for truncate in ends:
        found = ours.encode(texts, prefix="", truncate=truncate)
        assert asked == texts
        asked.clear()
        with monkeypatch.context() as without:
            without.setattr(tokenizers_of_ours, "_FEW_CHARS", 0)
            expected = ours.encode(texts, prefix="", truncate=truncate)
        assert asked == []
        for one, other in zip(found, expected, strict=True):
            assert (one.ids.tolist(), one.tokens) == (other.ids.tolist(), other.tokens)
