"""Our reading of OpenAI's vocabulary against OpenAI's own `tiktoken`."""

from __future__ import annotations

import random
import time

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from cortex_embed.providers import cl100k
from cortex_embed.providers.cl100k import Cl100k, NotCl100kError

TIKTOKEN = tiktoken.get_encoding(cl100k.NAME)


def ours() -> Cl100k:
    found = cl100k.cl100k()
    assert found is not None, f"{cl100k.FILE} is missing; `nox -s clients` makes it."
    return found


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=200)
WORDS = st.lists(
    st.sampled_from(
        ["word", "Ünï", "'S", "'ll", "don't", " ", "  ", "\n", "\r\n", "\t", "123", "4567", "٣٤٥",
         "北京", "😀👍🏽", "!!~", "_", "{'a'}", "x=", "\u00a0", "\u0301", "ſ", "'ſ", "½", "\u200d"]
    ),
    min_size=1, max_size=40,
).map("".join)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(TEXT | WORDS)
def test_what_tiktoken_encodes_is_read_back(text: str) -> None:
    assert ours().text(TIKTOKEN.encode(text, disallowed_special=())) == text


@settings(max_examples=500, deadline=None)
@given(WORDS, st.data())
def test_other_ids_of_the_same_text_are_refused(text: str, data: st.DataObject) -> None:
    """Any re-cutting of a text: only tiktoken's own is accepted (of few ids, without borders)."""
    raw = text.encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(raw) - 1)), max_size=12)))
    parts = [raw[a:b] for a, b in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
    ids = []
    for part in filter(None, parts):
        try:
            ids.append(TIKTOKEN.encode_single_token(part))
        except KeyError:
            ids += [TIKTOKEN.encode_single_token(bytes([byte])) for byte in part]
    if len(ids) >= cl100k._CERTAIN:
        ids = ids[: cl100k._CERTAIN - 1]
    decoded = TIKTOKEN.decode_bytes(ids)
    try:
        canonical = ids == TIKTOKEN.encode(decoded.decode(), disallowed_special=())
    except UnicodeDecodeError:
        canonical = False
    if canonical:
        assert ours().text(ids) == decoded.decode()
    else:
        with pytest.raises(NotCl100kError):
            ours().text(ids)


@pytest.mark.parametrize(
    "letters", ["a", "ab", "abcdefghijklmnopqrstuvwxyz", " ", "-=", "😀", "北京"]
)
def test_an_endless_word_takes_linear_time(letters: str) -> None:
    seeded = random.Random(7)  # noqa: S311 - no secret
    text = "".join(seeded.choice(letters) for _ in range(60_000))
    ids = TIKTOKEN.encode(text)
    began = time.perf_counter()
    assert ours().text(ids) == text
    assert time.perf_counter() - began < 3
