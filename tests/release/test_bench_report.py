"""build/bench's texts, accounting, goals and table."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench import goals, machine, report, texts
from bench.engines import Outcome, median
from bench.workers.encoding import Encoder, padded, pooled
from bench.workers.profile_ours import linear_flops, phases
from cortex_embed.kernels import PHASES, POOLINGS
from cortex_embed.kernels.binding import Shape

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


def test_the_engine_that_was_chosen_is_named() -> None:
    found = results()
    row = found["engines"]["m"]["rows"][0]
    told = row | {"name": "b", "versions": {"engine": "onnxruntime", "engine_reason": ""}}
    chose = row | {"name": "a", "versions": {"engine": "native", "engine_reason": "AVX2"}}
    found["engines"]["m"]["rows"] += [chose, told]
    assert "Chosen engines: a: native (AVX2)." in report.markdown(found).splitlines()


def profile(**changed: Any) -> dict[str, Any]:
    ticks = np.arange(1, 1 + len(PHASES), dtype=np.uint64)
    return {
        "instruction_set": "AVX2",
        "phases": phases(ticks, seconds=9.0),
        "linear_share_of_time": 0.62,
        "linear_share_of_peak": 0.9,
    } | changed


def test_the_profile_is_a_table_by_phase() -> None:
    found = results()
    assert "native engine's time" not in report.markdown(found)
    found["profile"] = {
        "fp32": profile(),
        "int8": profile(linear_share_of_peak=None),
        "int4": {"error": "RuntimeError: no counter\nand so on"},
    }
    lines = report.markdown(found).splitlines()
    head = next(n for n, line in enumerate(lines) if line.startswith("| | embed | qkv |"))
    shares = "2 % | 4 % | 7 % | 9 % | 11 % | 13 % | 16 % | 18 % | 20 %"
    assert lines[head + 2 : head + 4] == [
        f"| fp32, AVX2 | {shares} | 62 % | 90 % |",
        f"| int8, AVX2 | {shares} | 62 % | unknown |",
    ]
    assert len({line.count("|") for line in lines[head : head + 4]}) == 1
    assert "- int4 (profile): `RuntimeError: no counter`" in lines


def test_ticks_share_out_the_time() -> None:
    ticks = np.zeros(len(PHASES), dtype=np.uint64)
    with pytest.raises(RuntimeError, match="only x86"):
        phases(ticks, 1.0)
    ticks[PHASES.index("up")], ticks[PHASES.index("pool")] = 3 * 2**60, 2**60
    found = phases(ticks, 8.0)
    assert found["up"] == {"seconds": 6.0, "share": 0.75}
    assert found["pool"] == {"seconds": 2.0, "share": 0.25}


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_linear_layers_are_counted_as_they_are_run(pooling: str) -> None:
    """By hand, in the order of running: query, key, value, output, up, down."""
    shape = Shape(layers=3, hidden=64, intermediate=128, pooling=POOLINGS.index(pooling))
    square, wide = 2 * 64 * 64, 2 * 64 * 128
    whole = 10 * (4 * square + 2 * wide)
    last = whole if pooling == "mean" else 10 * 2 * square + 4 * (2 * square + 2 * wide)
    assert linear_flops(shape, tokens=10, texts=4) == 2 * whole + last


def test_the_readme_is_changed_between_its_markers_only() -> None:
    readme = "a\n<!-- bench -->\nold\n<!-- /bench -->\nb\n"
    assert report.into_readme(readme, "new") == readme.replace("old", "new")
    with pytest.raises(ValueError, match="0 blocks"):
        report.into_readme("a", "new")


def test_batches_are_within_budget_and_pooling_ignores_padding(
    tiny_mean: Artifact, tmp_path: Path
) -> None:
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
