from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading

import pytest

from cortex_embed import stopping


async def test_the_first_signal_stops_and_handlers_come_back() -> None:
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    stop = asyncio.Event()
    with stopping.on_first_signal(stop.set):
        signal.raise_signal(signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), 5)
        assert signal.getsignal(signal.SIGTERM) is stopping._second_signal
        assert signal.getsignal(signal.SIGINT) is stopping._second_signal
    assert {number: signal.getsignal(number) for number in before} == before


async def test_the_second_signal_leaves_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    stopping._second_signal(signal.SIGTERM, None)
    stopping._second_signal(signal.SIGINT, None)
    assert left == [143, 130]


def test_outside_the_main_thread_no_handler_is_set() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    async def run() -> None:
        with stopping.on_first_signal(lambda: None):
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: asyncio.run(run()))
    thread.start()
    thread.join(10)
    assert seen == [before]


def test_leaving_flushes_what_was_said(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "_exit", sys.exit)
    sys.stdout.write("said")
    with pytest.raises(SystemExit) as caught:
        stopping.leave(3)
    assert caught.value.code == 3
    assert capfd.readouterr().out == "said"
