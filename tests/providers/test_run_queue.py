"""The queue of native runs: that its threads need no interpreter, and end with the process."""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from cortex_embed.errors import EngineError
from cortex_embed.kernels.binding import HAS_QUEUE
from cortex_embed.providers import run_queue
from cortex_embed.providers.native_engine import NativeEngine
from tests.providers.batching import until

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

pytestmark = pytest.mark.skipif(not HAS_QUEUE, reason="this system has no queue of native runs")


@pytest.fixture
def engine(kernel_mean: Artifact, kernel_sets: tuple[str, ...]) -> NativeEngine:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    return NativeEngine(kernel_mean.graph_for("int8"), dimensions=kernel_mean.spec.dimensions)


def queue_of(engine: NativeEngine, threads: int = 1) -> run_queue.RunQueue:
    assert engine.queue is not None
    return engine.queue(threads, lambda: None)


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("engine-")]


async def done(run: run_queue.NativeRun) -> None:
    await until(lambda: run.seconds > 0)


async def closed(queue: run_queue.RunQueue) -> None:
    await asyncio.to_thread(queue.close)
    queue.release()


async def test_runs_go_on_while_the_interpreter_is_busy(engine: NativeEngine) -> None:
    queue = queue_of(engine)
    first, second = (queue.prepare([np.arange(n, dtype=np.int64)]) for n in (5, 9))
    queue.offer(second)
    queue.submit(first, goes_on=True)
    # A call of PyDLL keeps the interpreter's lock: no thread of Python runs until it returns.
    ctypes.PyDLL(None).usleep(300_000)
    assert first.seconds > 0
    assert second.seconds > 0
    await closed(queue)


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
@pytest.mark.parametrize("length", [1, 12, 48])
async def test_a_text_alone_is_shared_by_all_but_one(
    threads: int, length: int, kernel_mean: Artifact, engine: NativeEngine
) -> None:
    """One thread stays free: for a short request while a long text has the others."""
    text = np.arange(length, dtype=np.int64)
    expected = engine.run([text]).tobytes()
    queue, runs = queue_of(engine, threads + 1), []
    for _ in range(200):
        run = queue.prepare([text], alone=True)
        assert len(run.works) == threads
        queue.submit(run, goes_on=False)
        await done(run)
        assert run.outcome.tobytes() == expected
        run.release()
        runs.append(run)
    await closed(queue)
    assert all(run.is_left for run in runs)


async def test_one_text_on_many_threads_is_told_once(engine: NativeEngine) -> None:
    told: list[int] = []
    assert engine.queue is not None
    queue = engine.queue(4, lambda: told.append(1))

    async def heard(times: int) -> None:
        await until(lambda: len(told) >= times)

    for number in range(50):
        run = queue.prepare([np.arange(40, dtype=np.int64)], alone=True)
        queue.submit(run, goes_on=False)
        await heard(number + 1)
        assert run.seconds > 0
    await asyncio.sleep(0.02)
    await closed(queue)
    assert len(told) == 50


async def test_a_batch_that_cannot_be_computed_is_refused(engine: NativeEngine) -> None:
    queue = queue_of(engine)
    for wrong in ([], [np.array([10**6])], [np.array([], dtype=np.int64)]):
        with pytest.raises(EngineError, match="reached the engine"):
            queue.prepare(wrong)
    await closed(queue)


async def test_workspaces_come_back(engine: NativeEngine) -> None:
    queue = queue_of(engine)
    free: list[Any] = engine._workspaces._free
    for _ in range(5):
        run = queue.prepare([np.arange(5, dtype=np.int64)])
        assert free == []
        queue.submit(run, goes_on=True)
        await done(run)
        run.release()
        assert len(free) == 1
    await closed(queue)


async def test_nothing_is_left_of_it(engine: NativeEngine) -> None:
    def descriptors() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    before = descriptors()
    for _ in range(3):
        queue = queue_of(engine, threads=3)
        assert (descriptors(), len(own_threads())) == (before + 2, 3)
        await closed(queue)
        assert (descriptors(), own_threads()) == (before, [])


async def test_too_many_threads_say_what_to_do(
    engine: NativeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[int] = []

    class Refused(threading.Thread):
        def start(self) -> None:
            if started:
                raise RuntimeError("can't start new thread")
            started.append(1)
            super().start()

    monkeypatch.setattr(threading, "Thread", Refused)
    with pytest.raises(EngineError, match=r"1 of 4 threads could be started .*Lower --threads"):
        queue_of(engine, 4)
    assert own_threads() == []


def test_a_process_that_does_not_close_it_ends(kernel_mean: Artifact) -> None:
    program = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from cortex_embed.providers.native_engine import NativeEngine\n"
        "async def main():\n"
        f"    engine = NativeEngine(Path(sys.argv[1]), dimensions={kernel_mean.spec.dimensions})\n"
        "    queue = engine.queue(2, lambda: None)\n"
        "    print('made')\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(kernel_mean.graph_for("int8"))],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "made\n", "")
