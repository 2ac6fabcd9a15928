from __future__ import annotations

import os
import queue
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from cortex_embed import stopping
from cortex_embed.commands import pipes
from cortex_embed.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_chunks_end_where_the_pipe_does(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"one\ntwo")
    os.close(pipe[1])
    assert b"".join(pipes.chunks(pipe[0])) == b"one\ntwo"
    assert list(pipes.chunks(None)) == []


def test_a_descriptor_that_is_gone_is_an_end() -> None:
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    assert list(pipes.chunks(read)) == []


@pytest.mark.skipif(sys.platform == "win32", reason="pipes do not block there")
def test_descriptors_that_do_not_block_are_waited_for(pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    line = b"x" * 300_000 + b"\n"
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.extend(pipes.chunks(read)))
    reader.start()
    pipes.Output(write).put(line)
    os.close(write)
    reader.join(20)
    assert b"".join(received) == line


def test_an_output_that_nobody_reads_ends_the_process(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stopping, "leave", sys.exit)
    os.close(pipe[0])
    with pytest.raises(SystemExit) as caught:
        pipes.Output(pipe[1]).put(b"x\n")
    assert caught.value.code == OutputError.exit_code == 6
    assert "stdout cannot be written: Broken pipe" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="a write tells there")
def test_a_closed_output_is_noticed_without_a_write(pipe: tuple[int, int]) -> None:
    closed = threading.Event()
    pipes.Output(pipe[1]).watch(closed.set)
    assert not closed.wait(0.2)
    os.close(pipe[0])
    assert closed.wait(10)


def test_no_stdout_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OutputError, match="give it a pipe"):
        pipes.own_stdout()
    monkeypatch.setattr(sys, "stdin", None)
    assert pipes.stdin() is None


def test_what_is_over_the_budget_waits() -> None:
    budget = pipes.Budget(requests=2, size=100)
    budget.take(1000)  # alone, whatever its size
    taken: queue.Queue[int] = queue.Queue()

    def take() -> None:
        for cost in (60, 60, 1):
            budget.take(cost)
            taken.put(cost)

    thread = threading.Thread(target=take, daemon=True)
    thread.start()
    with pytest.raises(queue.Empty):
        taken.get(timeout=0.1)
    budget.give(1000)
    assert taken.get(timeout=10) == 60
    with pytest.raises(queue.Empty):
        taken.get(timeout=0.1)  # 120 are more than 100
    budget.give(60)
    assert [taken.get(timeout=10), taken.get(timeout=10)] == [60, 1]
    thread.join(10)
