"""One holder at a time, whatever becomes of it, and no file left."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cortex_embed.locking import held, try_lock

HOLDER = (
    "import sys, time; from pathlib import Path; from cortex_embed.locking import held\n"
    "with held(Path(sys.argv[1]), print):\n"
    "    print('held', flush=True); time.sleep(60)\n"
)


def test_it_is_there_while_held_and_gone_after(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "lock"
    with held(lock, pytest.fail):
        assert lock.read_text() == str(os.getpid())
        descriptor = os.open(lock, os.O_RDWR)
        assert not try_lock(descriptor)
        os.close(descriptor)
    assert not lock.exists()


def test_it_is_given_back_on_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), held(tmp_path / "lock", pytest.fail):
        raise ZeroDivisionError
    with held(tmp_path / "lock", pytest.fail):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_dead_hold_nothing_and_the_living_are_named(tmp_path: Path) -> None:
    lock, told = tmp_path / "lock", []
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"

        def kill(who: str) -> None:
            told.append(who)
            process.kill()

        with held(lock, kill):
            assert told == [f"process {process.pid}"]
    assert not lock.exists()


def test_many_take_turns(tmp_path: Path) -> None:
    inside, most, turns = 0, 0, []

    def work(number: int) -> None:
        nonlocal inside, most
        for _ in range(5):
            with held(tmp_path / "lock", lambda _: None):
                inside += 1
                most = max(most, inside)
                turns.append(number)
                inside -= 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert (most, len(turns)) == (1, 20)
    assert list(tmp_path.iterdir()) == []
