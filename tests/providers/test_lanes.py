"""Which texts of a lane go together, without threads or waiters."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortex_embed.providers.lanes import Entry, Job, Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

PADDED = pytest.mark.parametrize("padded", [True, False])


def job_of(lengths: Sequence[int]) -> Job:
    loop = asyncio.new_event_loop()
    try:
        done = loop.create_future()
    finally:
        loop.close()
    return Job(
        texts=[np.zeros(length, dtype=np.int64) for length in lengths],
        vectors=np.empty((len(lengths), 3), dtype=np.float32),
        done=done, left=len(lengths), lane="interactive", queued_at=0.0,
    )  # fmt: skip


def filled(lengths: Sequence[int], *, padded: bool) -> Lane:
    lane, job = Lane(padded), job_of(lengths)
    for order, length in enumerate(lengths):
        lane.push(Entry(job, order, order, length))
    return lane


def lengths_of(entries: Sequence[Entry]) -> list[int]:
    return [entry.length for entry in entries]


@PADDED
def test_an_empty_lane_gives_nothing(padded: bool) -> None:
    lane = Lane(padded)
    assert lane.take(100) == []
    assert (lane.texts, lane.tokens) == (0, 0)


def test_padded_the_oldest_takes_those_of_like_length_along() -> None:
    lane = filled([40, 5, 39, 30, 29, 41, 40], padded=True)
    assert lengths_of(lane.take(200)) == [40, 40, 39, 30]
    assert lengths_of(lane.take(200)) == [5]
    assert lengths_of(lane.take(200)) == [29]


def test_without_padding_the_oldest_go_first_whatever_their_lengths() -> None:
    lane = filled([40, 5, 39, 30, 2], padded=False)
    assert lengths_of(lane.take(100)) == [40, 5, 39]
    assert lengths_of(lane.take(100)) == [30, 2]


@PADDED
def test_a_text_over_the_budget_goes_alone(padded: bool) -> None:
    lane = filled([300, 300], padded=padded)
    assert lengths_of(lane.take(100)) == [300]
    assert lane.tokens == 300


@PADDED
def test_who_leaves_takes_only_his_own(padded: bool) -> None:
    lane, leaving, staying = Lane(padded), job_of([7, 8]), job_of([7])
    for order, (job, index) in enumerate([(leaving, 0), (staying, 0), (leaving, 1)]):
        lane.push(Entry(job, index, order, len(job.texts[index])))
    lane.drop(leaving)
    assert (lane.texts, lane.tokens) == (1, 7)
    (left,) = lane.take(100)
    assert left.job is staying
    assert left.ids is staying.texts[0]
    assert lane.buckets == {}


@given(
    lengths=st.lists(st.integers(1, 90), max_size=40),
    budgets=st.lists(st.integers(1, 300), min_size=1, max_size=5),
    padded=st.booleans(),
)
def test_every_text_is_taken_once_and_in_its_turn(
    lengths: list[int], budgets: list[int], *, padded: bool
) -> None:
    lane = filled(lengths, padded=padded)
    taken: list[int] = []
    while lane.texts:
        budget = budgets[len(taken) % len(budgets)]
        oldest = min(e.order for line in lane.buckets.values() for e in line)
        run = lane.take(budget)
        assert run[0].order == oldest
        size = run[0].length * len(run) if padded else sum(lengths_of(run))
        assert size <= budget or len(run) == 1
        taken += [entry.order for entry in run]
        assert lane.tokens == sum(lengths) - sum(lengths[order] for order in taken)
    assert sorted(taken) == list(range(len(lengths)))
    assert padded or taken == sorted(taken)
