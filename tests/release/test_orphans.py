"""The matrix's table and verdict, and the matrix itself on a sidecar in small."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

import orphans
from orphans import Outcome, Target

STUB = [sys.executable, str(Path(__file__).with_name("one_file_stub.py"))]
TERM, KILL = signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)
linux = pytest.mark.skipif(sys.platform != "linux", reason="/proc")

GONE = Outcome("host", TERM, 0, seconds=0.125)
SWEPT = Outcome("host", TERM, "ready", seconds=0.5, swept=True)
ABSENT = Outcome("inner", KILL, 0, absent=True)
RUNNING = Outcome("inner", KILL, "ready")
LITTER = Outcome("inner", KILL, "ready", seconds=0.1, swept=True, left=2)


@pytest.mark.parametrize(
    ("outcome", "passed", "said"),
    [
        (GONE, True, "0.12 s"),
        (SWEPT, True, "0.50 s, swept"),
        (ABSENT, True, "not there"),
        (RUNNING, False, "**left running**"),
        (LITTER, False, "**2 temp left**"),
    ],
)
def test_an_outcome(outcome: Outcome, passed: bool, said: str) -> None:
    assert outcome.passed == passed
    assert str(outcome) == said


def test_the_table() -> None:
    assert orphans.table([GONE, SWEPT, ABSENT, RUNNING]).splitlines() == [
        "| killed | by | 0 ms | ready |",
        "|---|---|---:|---:|",
        "| host | SIGTERM | 0.12 s | 0.50 s, swept |",
        f"| inner | {KILL.name} | not there | **left running** |",
    ]


def test_the_verdict() -> None:
    assert orphans.verdict([GONE, SWEPT, ABSENT]) == (
        "2 of 2 left nothing: the slowest was gone after 0.50 s, "
        "1 temp directories were swept by the next start."
    )
    assert orphans.verdict([GONE, RUNNING, LITTER, ABSENT]) == "2 of 3 left something."


@linux
def test_one_file_is_told_from_source(tmp_path: Path) -> None:
    assert orphans.is_one_file([*STUB, "--one-file"], tmp_path)
    assert not orphans.is_one_file(STUB, tmp_path)
    assert list(tmp_path.iterdir()) == []


@linux
@pytest.mark.parametrize("target", ["bootloader", "inner", "host"])
def test_a_one_file_program_with_the_watch_leaves_nothing(tmp_path: Path, target: Target) -> None:
    outcomes = orphans.matrix(
        [*STUB, "--one-file"], tmp_path, targets=[target], moments=[20, "ready"], one_file=True
    )
    assert len(outcomes) == 4
    assert [str(o) for o in outcomes if not o.passed] == []
    assert not any(o.absent for o in outcomes if o.moment == "ready")
    assert list(tmp_path.iterdir()) == []


@linux
@pytest.mark.parametrize("target", ["bootloader", "host"])
def test_one_without_it_is_found_out(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUB_BARE", "1")
    monkeypatch.setattr(orphans, "LIMIT", 0.5)
    outcome = orphans.one([*STUB, "--one-file"], tmp_path, target, KILL, "ready", one_file=True)
    assert not outcome.passed
    assert outcome.seconds is None


@linux
@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/bin/true", "it ended without a 'ready' event"),
        ("/bin/sh -c 'sleep 20'", "no 'ready' event within 0.5 s"),
    ],
)
def test_a_program_that_does_not_start_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str, words: str
) -> None:
    monkeypatch.setattr(orphans, "_START_LIMIT", 0.5)
    assert orphans.main(["--exe", program]) == 1
    assert words in capsys.readouterr().err


def test_elsewhere_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert orphans.main([]) == 2
    assert "run it on Linux" in capsys.readouterr().err
