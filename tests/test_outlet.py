"""Writes that never wait: order, drops, and what the other end does."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from cortex_embed.outlet import Outlet, unblocked_stderr


@pytest.fixture(autouse=True)
def broken_pipes_are_errors() -> Iterator[None]:
    """As Python starts; the tests of `embed`, which wants to be ended by `| head`, change it."""
    if not hasattr(signal, "SIGPIPE"):
        yield
        return
    before = signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue  # a test has closed it


def test_everything_arrives_in_order(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1])
    said = "".join(f"line {n} ✓\n" for n in range(500))
    for line in said.splitlines(keepends=True):
        assert outlet.write(line) == len(line)
    assert outlet.settle(5)
    assert os.read(pipe[0], 65536).decode() == said


def test_a_pipe_that_nobody_reads_holds_nobody_up(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1])
    line = "x" * 1023 + "\n"
    for _ in range(2000):  # 2 MB: far more than any pipe and our own store hold
        outlet.write(line)
    assert not outlet.settle(0.05)
    # Once somebody reads, whole lines come out, and new ones get through.
    received = bytearray()
    reader = threading.Thread(target=lambda: received.extend(_read_until(pipe[0], b"last\n")))
    reader.start()
    while not outlet.settle(5):
        pytest.fail("the store was not emptied")
    outlet.write("last\n")
    reader.join(10)
    lines = bytes(received).splitlines(keepends=True)
    assert lines[-1] == b"last\n"
    assert {len(one) for one in lines[:-1]} == {1024}
    assert 64 <= len(lines) < 2000


def _read_until(end: int, last: bytes) -> bytes:
    received = b""
    while not received.endswith(last):
        received += os.read(end, 65536)
    return received


def test_a_reader_that_is_gone_is_no_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    outlet = Outlet(pipe[1])
    outlet.write("nobody hears\n")
    assert not outlet.settle(5)
    assert outlet.write("nor this\n") == 9


def test_a_closed_descriptor_is_no_error(pipe: tuple[int, int]) -> None:
    os.close(pipe[1])
    outlet = Outlet(pipe[1])
    outlet.write("nobody hears\n")
    assert not outlet.settle(5)


def test_what_the_encoding_lacks_is_replaced(pipe: tuple[int, int]) -> None:
    outlet = Outlet(pipe[1], encoding="ascii")
    outlet.write("✓ ok\n")
    assert outlet.settle(5)
    assert os.read(pipe[0], 100) == b"? ok\n"


def test_stderr_is_an_outlet_for_the_time_being(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with os.fdopen(os.dup(pipe[1]), "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with unblocked_stderr():
            kind: type = type(sys.stderr)
            sys.stderr.write("hello\n")
        assert kind is Outlet
        assert sys.stderr is stream
    assert os.read(pipe[0], 100) == b"hello\n"


def test_without_a_stderr_nothing_is_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with unblocked_stderr():
        assert sys.stderr is None
