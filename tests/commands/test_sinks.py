from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cortex_embed.commands import sinks
from cortex_embed.commands.lines import Line
from cortex_embed.domain import EmbedResult, Truncation
from cortex_embed.errors import OutputError, UsageError
from tests.test_service import SPEC


def result(rows: int, first: float = 0, **extra: object) -> EmbedResult:
    vectors = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) + np.float32(first)
    return EmbedResult(vectors, tokens=rows, model=SPEC, **extra)  # type: ignore[arg-type]


def some(rows: int, start: int = 1) -> list[Line]:
    return [Line(n, f"line {n}", "x") for n in range(start, start + rows)]


def test_json_lines_hold_index_id_vector_and_truncation(tmp_path: Path) -> None:
    sink = sinks.open_sink(tmp_path / "out.jsonl", "jsonl", 4)
    sink.write([Line(1, "line 1", "x", id="a"), Line(3, "line 3", "y")],
               result(2, truncations=(Truncation(1, 900, 512),)))  # fmt: skip
    assert not (tmp_path / "out.jsonl").exists()
    sink.finish()
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert rows == [
        {"index": 0, "id": "a", "embedding": [0, 1, 2, 3]},
        {"index": 2, "embedding": [4, 5, 6, 7], "truncated": {"tokens": 900, "used": 512}},
    ]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.jsonl"]


@pytest.mark.parametrize("windows", [[], [1], [3, 5], [1000] * 12])
def test_npy_is_an_array_of_all_rows(windows: list[int], tmp_path: Path) -> None:
    sink = sinks.open_sink(tmp_path / "out.npy", "npy", 4)
    done = 0
    for rows in windows:
        sink.write(some(rows), result(rows, first=done * 4))
        done += rows
    sink.finish()
    array = np.load(tmp_path / "out.npy")
    assert (array.shape, array.dtype) == ((done, 4), np.float32)
    np.testing.assert_array_equal(array.ravel(), np.arange(done * 4))


@pytest.mark.parametrize(("kind", "suffix"), [("jsonl", ".jsonl"), ("npy", ".npy")])
def test_what_is_left_after_a_failure_is_named_and_usable(
    kind: str, suffix: str, tmp_path: Path
) -> None:
    sink = sinks.open_sink(tmp_path / f"out{suffix}", kind, 4)
    assert sink.leftover() == ""
    sink.write(some(2), result(2))
    assert (
        sink.leftover() == f" The first 2 vectors are in {tmp_path / ('out' + suffix + '.part')}."
    )
    part = tmp_path / f"out{suffix}.part"
    if kind == "npy":
        assert np.load(part).shape == (2, 4)
    else:
        assert len(part.read_text().splitlines()) == 2
    sink.finish()


@pytest.mark.parametrize(("kind", "name"), [("jsonl", "out.jsonl"), ("npy", "out.npy")])
def test_a_place_that_cannot_be_written_is_named(kind: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot write") as caught:
        sinks.open_sink(tmp_path / "no" / name, kind, 4)
    assert name in caught.value.message
    assert caught.value.exit_code == 6


def test_formats() -> None:
    assert sinks.output_format(None, None) == "jsonl"
    assert sinks.output_format(Path("x.NPY"), None) == "npy"
    assert sinks.output_format(Path("x.bin"), "npy") == "npy"
    with pytest.raises(UsageError, match="say --format"):
        sinks.output_format(Path("x.bin"), None)
    with pytest.raises(UsageError, match="needs --output"):
        sinks.output_format(None, "npy")
