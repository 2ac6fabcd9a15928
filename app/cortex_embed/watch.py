"""The parent watch: one thread that notices that the host is gone, and ends this process.

Nobody else would: a host that is killed tells no one, and of a one-file program's two
processes only the inner one outlives a killed bootloader. It is armed before the model is
loaded. It must never cost a start anything (nothing is imported that is not there already),
and never let a process live on for longer than its deadline.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from cortex_embed.litter import MARKER, hold, remove_tree, sweep
from cortex_embed.processes import bootloader_pid, host_pid, started, unpacked
from cortex_embed.waiting import waiter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MARKER", "Watch", "bootloader_pid", "host_pid", "sweep"]

DEADLINE = 1.5
"""Seconds from the host's end to ours, at most, where someone was told and may finish."""
_CLEAN_UP_LIMIT = 0.25
# What kills the host often kills the bootloader too, a moment after stdin has closed.
_SAME_BLOW = 0.1


class Watch:
    """Arm it (`watch_…`), then `start` it, once. What is gone already counts as soon as it starts.

    Without `on_orphaned` the process ends at once, with exit code 0: to be left alone is a
    way of being stopped, not a failure.
    """

    def __init__(self) -> None:
        self._waiter = waiter()
        self._armed = False
        self._orphaned_by = ""
        self._callback: Callable[[str], None] | None = None
        self._clean_ups: list[Callable[[], None]] = []
        self._lock = threading.Lock()
        self._cleaning = threading.Lock()
        self._held: int | None = None

    def watch_stdin(self) -> bool:
        """End when stdin does, reading and dropping what comes until then.

        False, and nothing is watched, where stdin is neither a pipe nor a socket.
        """
        watched = self._waiter.add_stdin()
        self._armed = self._armed or watched
        return watched

    def watch_process(self, pid: int, why: str) -> None:
        """End when `pid` does. `why` is what `on_orphaned` will be told."""
        if pid <= 0:
            raise ValueError(f"{pid} must be the id of a process, above 0")
        self._armed = True
        if not self._waiter.add_process(pid, why) and not self._orphaned_by:
            self._orphaned_by = why

    def on_orphaned(self, callback: Callable[[str], None]) -> None:
        """From now on call `callback` with the reason, on a thread of the watch.

        It should stop the process; after `DEADLINE` the watch does.
        """
        with self._lock:
            self._callback = callback

    @property
    def ends_at_once(self) -> bool:
        """Whether the host is gone and nobody has asked to be told: the process is ending then, and
        its socket and its unpacked files are going."""
        with self._lock:
            return bool(self._orphaned_by) and self._callback is None

    def at_exit(self, clean_up: Callable[[], None]) -> None:
        """Call `clean_up` before the process is ended by the watch. It must be quick."""
        self._clean_ups.append(clean_up)

    def start(self) -> None:
        """Watch from now on: what was armed, and a one-file program's outer process always."""
        if bootloader_pid():
            self._watch_bootloader()
        if self._armed:
            atexit.register(self.clean)
            threading.Thread(target=self._run, name="parent watch", daemon=True).start()

    def clean(self) -> None:
        """If the host is gone: clean up now. For who ends the process by `os._exit` meanwhile."""
        with self._cleaning:
            if not self._orphaned_by:
                return
            clean_ups, self._clean_ups = self._clean_ups, []
            for clean_up in reversed(clean_ups):
                _within(_CLEAN_UP_LIMIT, clean_up)
            place = unpacked()
            if place is not None and _bootloader_goes():
                # The very last thing: nothing can be loaded from it any more.
                remove_tree(place)

    def _watch_bootloader(self) -> None:
        place = unpacked()
        if place is not None:
            self._held = hold(place)
        self.watch_process(bootloader_pid(), "bootloader")
        # After arming: if it is still our parent now, what was armed is no later process.
        if _bootloader_is_gone():
            self._orphaned_by = "bootloader"

    def _run(self) -> None:
        why = self._orphaned_by or self._waiter.wait()
        deadline = time.monotonic() + DEADLINE
        with self._lock:
            self._orphaned_by = why
            callback = self._callback
        if callback is not None:
            _within(DEADLINE, lambda: callback(why))
            time.sleep(max(0.0, deadline - time.monotonic()))
        self.clean()
        os._exit(0)


def _bootloader_is_gone() -> bool:
    pid = bootloader_pid()
    if os.name == "nt":  # there a process keeps the number of its parent
        return not started(pid) or started(pid) > started(os.getpid())
    return os.getppid() != pid


def _bootloader_goes() -> bool:
    """Whether nobody will remove our directory after us."""
    deadline = time.monotonic() + _SAME_BLOW
    while not _bootloader_is_gone():
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _within(seconds: float, work: Callable[[], None]) -> None:
    """Do `work`, but do not wait for longer than `seconds`. Whatever it raises is dropped."""

    def run() -> None:
        with suppress(Exception):
            work()

    worker = threading.Thread(target=run, name="parent watch: last words", daemon=True)
    try:
        worker.start()
    except RuntimeError:  # the interpreter is ending: no new threads
        run()
        return
    worker.join(seconds)
