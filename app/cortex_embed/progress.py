"""A download as a person follows it: a bar on a terminal, elsewhere a line now and then.

It must never write to stdout, nor anything while nothing is downloaded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.models.obtain import Progress

_EVERY = 5.0
"""Seconds between two lines."""


class Display:
    """Shows one download at a time on `stream`. `say` writes a whole line there."""

    def __init__(self, stream: TextIO, say: Callable[[str], None]) -> None:
        self._stream = stream
        self._say = say
        self._bar: Any = None
        self._began = 0.0
        self._begun_with = 0
        self._told = 0.0

    def update(self, progress: Progress) -> None:
        """Show how far it is."""
        if not self._began:
            self._began = self._told = time.monotonic()
            self._begun_with = progress.done
            if self._stream.isatty():
                self._bar = _bar(progress, self._stream)
        if self._bar is not None:
            self._bar.total = progress.total
            self._bar.set_description_str(f"{progress.model} ({progress.phase})", refresh=False)
            self._bar.update(progress.done - self._bar.n)
        elif progress.phase == "download" and time.monotonic() - self._told >= _EVERY:
            self._told = time.monotonic()
            self._say(self._line(progress))

    def _line(self, progress: Progress) -> str:
        seconds = time.monotonic() - self._began
        rate = (progress.done - self._begun_with) / seconds / 1e6
        part = 100 * progress.done // max(progress.total, 1)
        return (
            f"{progress.model}: {progress.done / 1e6:,.1f} of {progress.total / 1e6:,.1f} MB "
            f"({part} %), {rate:,.1f} MB/s"
        )

    def say(self, line: str) -> None:
        """Write `line` where the bar is, which goes on below."""
        if self._bar is not None:
            self._bar.clear()
        self._say(line)
        if self._bar is not None:
            self._bar.refresh()

    def close(self) -> None:
        """The download is over, however it went."""
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._began = 0.0


def _bar(progress: Progress, stream: TextIO) -> Any:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # no thread of its own
    return tqdm(
        total=progress.total,
        initial=progress.done,
        file=stream,
        unit="B",
        unit_scale=True,
        dynamic_ncols=True,
        mininterval=0,
    )
