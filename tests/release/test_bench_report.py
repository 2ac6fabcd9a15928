"""build/bench's texts, accounting, goals and table."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from bench import goals, machine, report, texts
from bench.engines import Outcome, median
from bench.workers.encoding import Encoder, padded, pooled

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact


def outcome(name: str, *rates: float, disturbed: tuple[bool, ...] = ()) -> Outcome:
    marks = disturbed or (False,) * len(rates)
    rounds: list[dict[str, Any]] = [
        {
            kind: {"texts_per_second": rate, "p50_ms": 1 / rate, "load": {"disturbed": mark}}
            for kind in (*texts.SETS, "latency_short")
        }
        for rate, mark in zip(rates, marks, strict=True)
    ]
    cosine = {kind: {"min": 1.0, "mean": 1.0} for kind in texts.SETS}
    return Outcome(name, rounds, cosine=cosine)


def test_texts_are_the_same_every_time_and_fit(minilm_artifact: Artifact, tmp_path: Path) -> None:
    sizes = {"short": 20, "passages": 6, "mixed": 10}
    first = texts.make(tmp_path / "a", minilm_artifact.tokenizer, sizes, 256)
    again = texts.make(tmp_path / "b", minilm_artifact.tokenizer, sizes, 256)
    assert {n: s.sha256 for n, s in first.items()} == {n: s.sha256 for n, s in again.items()}
    assert [len(first[n].texts) for n in texts.SETS] == [20, 6, 10]
    assert max(first["short"].lengths) <= 15
    assert min(first["passages"].lengths) >= 100
    assert max(first["passages"].lengths) < 256  # nobody truncates
    warm = set(first["warmup"].texts)
    assert not warm & {t for n in texts.SETS for t in first[n].texts}


def test_medians_prefer_rounds_that_nobody_disturbed() -> None:
    found = outcome("x", 10.0, 1.0, 2.0, disturbed=(False, True, True))
    assert median(found, "short", "texts_per_second") == 10.0
    found = outcome("x", 10.0, 1.0, 2.0, disturbed=(True, True, True))
    assert median(found, "short", "texts_per_second") == 2.0
    assert median(Outcome("x"), "short", "texts_per_second") is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_work_of_our_own_children_is_not_foreign() -> None:
    burn = "import time; e = time.process_time() + 1\nwhile time.process_time() < e: pass"
    with machine.watched() as ours:
        subprocess.run([sys.executable, "-c", burn], check=True)
    assert ours.foreign is not None
    assert ours.share is not None
    assert machine.memory_mb(os.getpid()) is not None


def test_goals_are_ratios_within_the_run() -> None:
    found = list(
        goals.of_engines(
            [
                outcome("sentence-transformers fp32", 10.0),
                outcome("OpenVINO f32", 10.0),
                outcome("OpenVINO f32, tuned", 16.0),
                outcome("cortex-embed fp32", 20.0),
            ]
        )
    )
    by_name = {goal.what: goal for goal in found}
    assert by_name["fp32, mixed: x sentence-transformers fp32"].verdict == "met"
    better = by_name["fp32, short: x OpenVINO f32 (its better setting)"]
    assert better.value == 20 / 16
    assert by_name["int8, short: x sentence-transformers fp32"].verdict == "unknown"


def test_a_missing_figure_is_never_a_pass() -> None:
    assert goals.Goal("x", None, 1.0).verdict == "unknown"
    assert goals.Goal("x", float("nan"), 1.0).verdict == "missed"
    assert goals.Goal("x", 0.5, 1.0, at_least=False).verdict == "met"
    assert goals.Goal("x", 0.5, 1.0, at_least=False, disturbed=True).verdict == "unsure"


def test_a_ratio_of_a_disturbed_figure_is_unsure() -> None:
    found = goals.of_engines(
        [
            outcome("sentence-transformers fp32", 10.0, disturbed=(True,)),
            outcome("cortex-embed fp32", 20.0),
        ]
    )
    assert next(found).verdict == "unsure"


def results() -> dict[str, Any]:
    figures = dict.fromkeys(texts.SETS, 10.0)
    row = {
        "name": "sentence-transformers fp32",
        "error": None,
        "texts_per_second": figures,
        "disturbed": dict.fromkeys(texts.SETS, False),
        "gemm_share": 0.5,
        "latency_ms": {"short": 1.0, "passages": 2.0},
        "cosine": {"min": 1.0, "mean": 1.0},
        "peak_rss_mb": 100.0,
    }
    failed = {"name": "bad", "error": "Traceback\n  File x\nValueError: it broke"}
    return {
        "when": "2026-01-02T03:04:05+00:00",
        "quick": False,
        "rounds": 5,
        "threads": 2,
        "max_tokens": 256,
        "machine": {"processor": "Abacus 3000", "system": "Linux", "python": "3.11"},
        "gemm_peak": {"fp32": 300.0, "int8": None},
        "engines": {"m": {"rows": [row, failed]}},
    }


def test_the_table_has_date_processor_and_failures() -> None:
    table = report.markdown(results())
    assert "2026-01-02" in table
    assert "Abacus 3000" in table
    assert "| sentence-transformers fp32 | 10 (1.00) |" in table
    assert "- bad: `ValueError: it broke`" in table
    assert "QUICK" not in table


def test_a_disturbed_figure_is_marked() -> None:
    found = results()
    found["engines"]["m"]["rows"][0]["disturbed"]["mixed"] = True
    assert "10 (1.00)*" in report.markdown(found)
    assert "\\* other processes" in report.markdown(found)


def test_the_readme_is_changed_between_its_markers_only() -> None:
    readme = "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n"
    assert report.into_readme(readme, "new") == readme.replace("old", "new")
    with pytest.raises(ValueError, match="0 blocks"):
        report.into_readme("a", "new")


def test_batches_are_within_budget_and_pooling_ignores_padding(
    tiny_mean: Artifact, tmp_path: Path
) -> None:
    import shutil

    import numpy as np

    shutil.copyfile(tiny_mean.tokenizer, tmp_path / "tokenizer.json")
    about = {"hf": str(tmp_path), "max_tokens": 16, "pooling": "mean"}
    encoder = Encoder(about, batch=3, order="sorted", budget=20)
    ids = encoder.ids(["a", "a b c d", "a b", "a " * 40, "b", "c"])
    batches = list(encoder.batches(ids))
    assert sorted(n for batch in batches for n in batch) == list(range(6))
    for batch in batches:
        longest = max(len(ids[n]) for n in batch)
        assert len(batch) == 1 or (len(batch) <= 3 and longest * len(batch) <= 20)
    matrix, mask = padded([[1, 2, 3], [4]])
    assert matrix.tolist() == [[1, 2, 3], [4, 0, 0]]
    states = np.ones((2, 3, 2), dtype=np.float32) * np.array([1.0, 2.0, 3.0])[None, :, None]
    assert pooled(states, mask, "mean").tolist() == [[2.0, 2.0], [1.0, 1.0]]
    assert pooled(states, mask, "cls").tolist() == [[1.0, 1.0], [1.0, 1.0]]
