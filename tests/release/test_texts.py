"""Calibration and judgement see different texts, always the same ones."""

from __future__ import annotations

from calibration_texts import calibration_texts
from quality_texts import quality_texts


def test_calibration_texts_are_repeatable_and_many_sided() -> None:
    texts = calibration_texts()
    assert texts == calibration_texts()
    assert texts != calibration_texts(seed=1)
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) == 1
    assert max(lengths) > 200
    assert any(not text.isascii() for text in texts)
    # A layer sees other things of a word than of a page, and by tokens words are soon outvoted.
    short = [count for count in lengths if 2 <= count <= 4]
    assert sum(short) > sum(lengths) / 8


def test_quality_texts_are_repeatable_and_distinct() -> None:
    texts = quality_texts(100)
    assert texts == quality_texts(100)
    assert len(set(texts)) == 100


def test_no_judge_was_calibrated_on() -> None:
    lines = {line for text in calibration_texts() for line in text.splitlines() if line}
    assert not any(line in text for text in quality_texts() for line in lines if len(line) > 20)
