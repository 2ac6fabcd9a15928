"""Ranks of one call: nobody is waited for, and there is one call at a time."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from cortex_embed.errors import EngineError
from cortex_embed.providers.team import Team

if TYPE_CHECKING:
    from collections.abc import Callable


def ranks_alive() -> int:
    return sum(thread.name.startswith("engine-rank") for thread in threading.enumerate())


def until(holds: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.001)


def test_every_rank_takes_part_in_the_same_call() -> None:
    together = threading.Barrier(3, timeout=10)
    seen: list[tuple[str, int]] = []

    def call(word: str, rank: int) -> None:
        seen.append((word, rank))
        together.wait()

    team = Team(call, 3)
    try:
        for word in ("one", "two"):
            until(lambda word=word: team.run(word))  # type: ignore[misc]
        assert sorted(seen) == [(word, rank) for word in ("one", "two") for rank in range(3)]
    finally:
        team.close()


def test_the_caller_waits_for_nobody_and_works_alone_until_all_are_back() -> None:
    gate, ended = threading.Event(), []

    def call(_work: None, rank: int) -> None:
        if rank:
            assert gate.wait(10)
        ended.append(rank)

    team = Team(call, 3)
    assert team.run(None)
    assert ended == [0]
    assert not team.run(None)
    assert ended == [0]
    gate.set()
    until(lambda: team.run(None))
    team.close()
    assert sorted(ended) == [0, 0, 1, 1, 2, 2]


def test_the_caller_hears_of_its_own_failure() -> None:
    def call(_work: None, rank: int) -> None:
        if not rank:
            raise EngineError("ill")

    team = Team(call, 2)
    with pytest.raises(EngineError, match="ill"):
        team.run(None)
    until(lambda: team._away == 0 or team._is_ready())
    team.close()


def test_a_thread_that_fails_is_logged_and_the_caller_works_alone_from_then_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def call(_work: None, rank: int) -> None:
        if rank == 1:
            raise EngineError("ill")

    team = Team(call, 3)
    assert team.run(None)
    until(lambda: not team._threads[0].is_alive())
    assert not team.run(None)
    assert "Thread 1 of the engine has failed" in caplog.text
    team.close()


def test_there_is_one_call_at_a_time() -> None:
    inside, gate = threading.Event(), threading.Event()

    def call(_work: None, rank: int) -> None:
        inside.set()
        assert gate.wait(10)

    team = Team(call, 2)
    first = threading.Thread(target=team.run, args=(None,))
    first.start()
    assert inside.wait(10)
    assert not team.run(None)
    gate.set()
    first.join()
    until(lambda: team.run(None))
    team.close()


def test_closing_waits_for_the_call_and_ends_the_threads() -> None:
    before = ranks_alive()
    inside, ended = threading.Event(), []

    def call(_work: None, rank: int) -> None:
        inside.set()
        time.sleep(0.1)
        ended.append(rank)

    team = Team(call, 4)
    assert ranks_alive() == before + 3
    caller = threading.Thread(target=team.run, args=(None,))
    caller.start()
    assert inside.wait(10)
    team.close()
    assert sorted(ended) == [0, 1, 2, 3]
    assert ranks_alive() == before
    caller.join()
    assert not team.run(None)
    team.close()


def test_a_rank_that_is_gone_is_not_waited_for() -> None:
    calls: list[int] = []
    team = Team(lambda _work, rank: calls.append(rank), 3)
    team._turns[1].put(None)  # as if its thread had died
    team._threads[1].join()
    assert not team.run(None)
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
