"""What counts of a load, and the figures of it. No clock is waited for."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.commands.bench_window import Load, Window, percentile
from cortex_embed.errors import TargetError


@given(st.lists(st.floats(0, 100), min_size=1), st.sampled_from([1, 50, 95, 99, 100]))
def test_percentiles_are_values_that_so_many_do_not_exceed(values: list[float], q: int) -> None:
    found = percentile(sorted(values), q)
    assert found in values
    assert sum(v <= found for v in values) >= q / 100 * len(values)


def opened(load: Load) -> tuple[Window, float]:
    """A window, and when it opens to within a second."""
    window = Window(load)
    return window, time.perf_counter() + 2.0


def ended(window: Window) -> float | None:
    return window.ended


def test_only_what_ends_within_counts() -> None:
    window, opens = opened(Load(2, 4, 100.0))
    window.answered(opens - 1.9, 0.5, 3)
    window.refused(opens - 1.9)
    for number in range(10):
        window.answered(opens + number, 0.001 * (number + 1), 3)
    window.refused(opens + 11)
    assert ended(window) is None
    window.answered(opens + 101, 0.020, 3)
    assert ended(window) == opens + 101
    window.answered(opens + 102, 9.0, 3)
    window.refused(opens + 102)
    sample = window.sample()
    assert (sample.requests, sample.refused, sample.concurrency) == (11, 1, 2)
    assert sample.p50_ms == pytest.approx(6.0)
    assert sample.max_ms == pytest.approx(20.0)
    assert sample.seconds == pytest.approx(101, abs=0.5)
    assert sample.texts_per_second == pytest.approx(4 * sample.requests_per_second)
    assert sample.tokens_per_second == pytest.approx(3 * sample.requests_per_second)


def test_tokens_that_one_answer_does_not_name_are_not_known() -> None:
    window, opens = opened(Load(1, 1, 10.0))
    for tokens in [3] * 9 + [None]:
        window.answered(opens + 11, 0.001, tokens)
    assert ended(window) is not None
    assert window.sample().tokens_per_second is None


def test_a_slow_target_gets_overtime() -> None:
    window, opens = opened(Load(1, 1, 10.0))
    for late in (11, 20, 29):
        window.answered(opens + late, 5.0, None)
        assert ended(window) is None
    window.answered(opens + 31, 5.0, None)
    assert ended(window) == opens + 31
    assert window.sample().requests == 4


def test_refusals_alone_are_no_figure() -> None:
    window, opens = opened(Load(7, 1, 1.0))
    window.refused(opens + 0.5)
    window.refused(opens + 22)
    assert ended(window) is not None
    with pytest.raises(TargetError, match=r"at concurrency 7 \(2 were refused\)"):
        window.sample()


def test_progress_is_the_windows_time_and_no_other() -> None:
    ticks: list[float] = []
    window, opens = opened(Load(1, 1, 100.0, tick=ticks.append))
    window.look(opens - 1.9)
    assert ticks == []
    for at in (30, 60, 99, 150, 200):
        window.look(opens + at)
    assert sum(ticks) == pytest.approx(100.0)
    assert window.look_at > opens + 200
