"""Ranks of one call: all at once, one call at a time, and nobody hangs."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from cortex_embed.errors import EngineError
from cortex_embed.providers.team import Team


def ranks_alive() -> int:
    return sum(thread.name.startswith("engine-rank") for thread in threading.enumerate())


def test_every_rank_takes_part_in_the_same_call() -> None:
    together = threading.Barrier(3, timeout=10)  # as inside the kernels: all or none
    seen: list[tuple[str, int]] = []

    def call(word: str, rank: int) -> None:
        together.wait()
        seen.append((word, rank))

    team = Team(call, 3)
    try:
        for word in ("one", "two"):
            assert team.run(word)
        assert sorted(seen[:3]) == [("one", 0), ("one", 1), ("one", 2)]
        assert sorted(seen[3:]) == [("two", 0), ("two", 1), ("two", 2)]
    finally:
        team.close()


def test_it_returns_when_the_last_rank_has_ended() -> None:
    ended = []

    def call(rank: int) -> None:
        time.sleep(0.05 * rank)
        ended.append(rank)

    team = Team(call, 3)
    assert team.run()
    assert ended == [0, 1, 2]
    team.close()


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_rank_that_fails_is_an_error_and_the_next_call_works(failing: int) -> None:
    broken = True

    def call(rank: int) -> None:
        if broken and rank == failing:
            raise EngineError(f"rank {rank} is ill")

    team = Team(call, 3)
    with pytest.raises(EngineError, match=f"rank {failing} is ill"):
        team.run()
    broken = False
    assert team.run()
    team.close()


def test_there_is_one_call_at_a_time() -> None:
    inside, gate = threading.Event(), threading.Event()

    def call(rank: int) -> None:
        inside.set()
        assert gate.wait(10)

    team = Team(call, 2)
    first = threading.Thread(target=team.run)
    first.start()
    assert inside.wait(10)
    assert not team.run()
    gate.set()
    first.join()
    assert team.run()
    team.close()


def test_closing_waits_for_the_call_and_ends_the_threads() -> None:
    before = ranks_alive()
    inside, ended = threading.Event(), []

    def call(rank: int) -> None:
        inside.set()
        time.sleep(0.1)
        ended.append(rank)

    team = Team(call, 4)
    assert ranks_alive() == before + 3
    caller = threading.Thread(target=team.run)
    caller.start()
    assert inside.wait(10)
    team.close()
    assert sorted(ended) == [0, 1, 2, 3]
    assert ranks_alive() == before
    caller.join()
    assert not team.run()
    team.close()


def test_a_rank_that_is_gone_is_not_waited_for() -> None:
    calls: list[int] = []
    team = Team(calls.append, 3)
    team._turns[1].put(None)  # as if its thread had died
    team._threads[1].join()
    assert not team.run()
    assert calls == []
    team.close()


def test_too_few_threads_leave_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start = ranks_alive(), threading.Thread.start

    def refusing(thread: Any) -> None:
        if thread.name == "engine-rank-3":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refusing)
    with pytest.raises(EngineError, match=r"3 of 5 threads .* Lower --threads"):
        Team(print, 5)
    assert ranks_alive() == before
