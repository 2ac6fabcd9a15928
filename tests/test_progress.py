"""What a person sees of a download: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io

import pytest

from cortex_embed.models.obtain import Progress
from cortex_embed.progress import Display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(done: int, phase: str = "download") -> Progress:
    return Progress(phase, "tiny", "model.onnx", done, 10_000_000)  # type: ignore[arg-type]


def test_lines_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [100.0], list[str]()
    monkeypatch.setattr("cortex_embed.progress.time.monotonic", lambda: now[0])
    display = Display(io.StringIO(), lines.append)
    for done in range(0, 10_000_000, 1_000_000):
        display.update(step(done))
        now[0] += 1.0
    display.update(step(10_000_000, "verify"))
    assert lines == ["tiny: 5.0 of 10.0 MB (50 %), 1.0 MB/s"]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    terminal = Terminal()
    display = Display(terminal, lambda line: print(line, file=terminal))
    display.update(step(2_000_000))
    display.update(step(5_000_000))
    display.say("something")
    display.update(step(10_000_000, "verify"))
    display.close()
    shown = terminal.getvalue()
    assert "5.00M/10.0M" in shown
    assert "tiny (verify): 100%" in shown
    assert "something\n" in shown
    assert shown.endswith("\n")


def test_nothing_is_shown_where_nothing_is_downloaded() -> None:
    terminal = Terminal()
    display = Display(terminal, lambda line: print(line, file=terminal))
    display.close()
    assert terminal.getvalue() == ""
