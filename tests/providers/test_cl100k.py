"""OpenAI's ids back to text: against what tiktoken gave, at borders, and for what is not OpenAI's.

`tests/clients/test_cl100k.py` compares with tiktoken itself.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.providers import cl100k
from cortex_embed.providers.cl100k import Cl100k, NotCl100kError, pack, unpack

CASES = json.loads(
    (Path(__file__).parent.parent / "data" / "cl100k.json").read_text(encoding="utf-8")
)["cases"]
CHINESE = CASES[5]["ids"]


@pytest.fixture(scope="module")
def vocabulary() -> Cl100k:
    found = cl100k.cl100k()
    if found is None:
        pytest.fail(f"{cl100k.FILE} is missing; `nox -s tests` makes it.")
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["text"][:12])
def test_ids_give_the_text_they_were_made_of(vocabulary: Cl100k, case: dict[str, object]) -> None:
    assert vocabulary.text(case["ids"]) == case["text"]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "why"),
    [
        ([71, 6151, 385], "other ids"),  # h|ello|..., which one token holds
        ([39, 68, 75, 75, 78], "other ids"),  # H e l l o
        ([15339, 100_256], "outside"),
        ([15339, 100_257], "outside"),  # <|endoftext|> is no text
        ([15339, -1], "outside"),
        ([10**30], "outside"),
        ([101, 7592, 2088, 102], "UTF-8"),  # BERT's "[CLS] hello world [SEP]"
        ([188], "NUL"),
        (CHINESE[1:8], "UTF-8"),  # few ids are no chunk of a long text
    ],
)
def test_what_openai_would_not_send_is_refused(
    vocabulary: Cl100k, ids: list[int], why: str
) -> None:
    with pytest.raises(NotCl100kError, match=why):
        vocabulary.text(ids)


def test_a_chunk_may_begin_and_end_in_the_middle_of_a_character(vocabulary: Cl100k) -> None:
    whole = CHINESE * 4
    data = b"".join(vocabulary._tokens[i] for i in whole)
    for start in range(len(CHINESE)):
        ids = whole[start : start + 30]
        at = sum(len(vocabulary._tokens[i]) for i in whole[:start])
        size = sum(len(vocabulary._tokens[i]) for i in ids)
        assert vocabulary.text(ids) == data[at : at + size].decode("utf-8", "replace")


def test_but_not_have_a_wrong_middle(vocabulary: Cl100k) -> None:
    words = [token for case in CASES[2:5] for token in case["ids"]]
    wrong = [*words[:20], 39, 68, 75, 75, 78, *words[20:40]]
    with pytest.raises(NotCl100kError, match="other ids"):
        vocabulary.text(wrong)


def test_few_ids_cannot_spell_an_endless_text(vocabulary: Cl100k) -> None:
    longest = max(range(cl100k.SIZE), key=lambda token: len(vocabulary._tokens[token]))
    with pytest.raises(NotCl100kError, match="limit is 1000000"):
        vocabulary.text([longest] * 8000)


def test_an_endless_word_takes_linear_time(vocabulary: Cl100k) -> None:
    """One pre-token of 900,000 bytes; tests/clients has the other kinds, made by tiktoken."""
    longest = vocabulary._ranks[b" " * 80]
    began = time.perf_counter()
    with pytest.raises(NotCl100kError, match="other ids"):
        vocabulary.text([*[longest] * 11_000, 39, 68])
    assert vocabulary.text([220]) == " "
    assert time.perf_counter() - began < 2


@given(st.lists(st.integers(0, cl100k.SIZE - 1), min_size=1, max_size=40))
def test_any_ids_give_text_or_are_refused(ids: list[int]) -> None:
    found = cl100k.cl100k()
    assert found is not None
    try:
        text = found.text(ids)
    except NotCl100kError:
        return
    assert text.encode("utf-8")


@given(st.binary(max_size=60))
def test_half_characters_are_cut_at_the_ends_only(data: bytes) -> None:
    begin, end = cl100k._whole_characters(data)
    assert begin <= 3
    assert len(data) - end <= 3
    middle = data[begin:end]
    assert b"".join((data[:begin], middle, data[end:])) == data
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return
    assert middle == data


@pytest.mark.parametrize("damage", [b"", b"not deflated", pack([b"a", b"b"])])
def test_a_damaged_file_is_told_from_a_vocabulary(damage: bytes) -> None:
    with pytest.raises(ValueError, match="not "):
        unpack(damage)


@pytest.mark.parametrize("damage", [None, b"x"])
def test_without_a_vocabulary_there_is_none(
    damage: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cl100k_base.zlib"
    if damage:
        file.write_bytes(damage)
    monkeypatch.setattr(cl100k, "FILE", file)
    assert cl100k.cl100k.__wrapped__() is None
