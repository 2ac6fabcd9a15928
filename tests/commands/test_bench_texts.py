"""The texts that `bench` makes never change, and those of a file are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_embed.commands import bench_texts
from cortex_embed.errors import InputError, UsageError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("name", bench_texts.SETS)
def test_built_in_texts_never_change(name: str) -> None:
    import hashlib

    texts = bench_texts.texts_for(name, max_chars=10_000)
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    assert (
        digest[:16]
        == {
            "short": "d34f5e98a05a7e47",
            "passages": "fb69a9e0e102daaf",
            "mixed": "1f47114c1712999f",
        }[name]
    )
    assert len(set(texts)) == len(texts) == 1024


def test_a_file_of_texts(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('"one"\n{"text": "two"}\n')
    found = bench_texts.texts_for(str(tmp_path / "in.jsonl"), max_chars=100)
    assert found == ["one", "two"]


def test_a_bad_line_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("one\n\n")
    with pytest.raises(InputError, match="line 2 is empty"):
        bench_texts.texts_for(str(tmp_path / "in.txt"), max_chars=100)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "in.txt").touch()
    with pytest.raises(UsageError, match="is empty"):
        bench_texts.texts_for(str(tmp_path / "in.txt"), max_chars=100)


def test_an_unknown_set_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="short, passages, mixed"):
        bench_texts.texts_for("shrt", max_chars=100)


def test_batches_are_all_full() -> None:
    assert bench_texts.batches(["a", "b", "c"], 2) == [("a", "b"), ("c", "a")]
    assert bench_texts.batches(["a"], 3) == [("a", "a", "a")]
