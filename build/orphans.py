"""The orphan matrix: whom one kills, how, and when; nothing may be left running, or in temp.

    python build/orphans.py                          # this source
    python build/orphans.py --exe dist/cortex-embed  # a one-file program

A host program starts `serve --sidecar` with a pipe as stdin; at a moment between exec and
serving one of host, outer process ("bootloader") and inner process is killed. Two seconds
later no process of that start may run, and after the next start no `_MEI…` directory may
lie in its temp directory. Linux only: processes are found by /proc. It must never touch a
process or a directory that it did not start or make itself.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Target = Literal["bootloader", "inner", "host"]
Moment = int | Literal["ready"]
MOMENTS: tuple[Moment, ...] = (0, 10, 20, 40, 80, 120, 160, 240, 400, "ready")
SIGNALS = (signal.SIGTERM, signal.SIGKILL)
LIMIT = 2.0
"""Seconds after which nothing may run any more."""
_START_LIMIT = 60.0
_SWEEP_LIMIT = 4.0
_MARK = "CORTEX_EMBED_ORPHANS_MARK"
# Without the mark itself: only what it starts is ours to look for.
_HOST = f"""
import json, os, subprocess, sys
mark, temp, *command = sys.argv[1:]
environment = os.environ | {{{_MARK!r}: mark, "TMPDIR": temp}}
child = subprocess.Popen(command, stdin=subprocess.PIPE, env=environment)
print(json.dumps({{"event": "spawned", "pid": child.pid}}), flush=True)
child.wait()
print(json.dumps({{"event": "ended", "pid": child.pid}}), flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One cell. `seconds` until nothing ran; `left` are temp directories after the next start."""

    target: Target
    number: signal.Signals
    moment: Moment
    seconds: float | None = None
    swept: bool = False
    left: int = 0
    absent: bool = False
    """There was no such process (yet, or any more) at this moment."""

    @property
    def passed(self) -> bool:
        return self.absent or (self.seconds is not None and self.left == 0)

    def __str__(self) -> str:
        if self.absent:
            return "not there"
        if self.seconds is None:
            return "**left running**"
        if self.left:
            return f"**{self.left} temp left**"
        return f"{self.seconds:.2f} s" + (", swept" if self.swept else "")


@dataclass(slots=True)
class Start:
    """One start of the program by a host of its own. Leave it by `end`, whatever happens."""

    command: Sequence[str]
    temp: Path
    mark: str = field(default_factory=lambda: secrets.token_hex(8))
    _events: list[dict[str, object]] = field(default_factory=list)
    _news: threading.Condition = field(default_factory=threading.Condition)
    host: subprocess.Popen[str] = field(init=False)
    _reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.host = subprocess.Popen(
            [sys.executable, "-c", _HOST, self.mark, str(self.temp), *self.command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.host.stdout is not None  # noqa: S101 - for the type checker
        for line in self.host.stdout:
            with suppress(ValueError), self._news:
                self._events.append(json.loads(line))
                self._news.notify_all()

    def pid_of(self, event: str) -> int:
        """The pid that `event` tells. Raises TimeoutError, ChildProcessError if it never will."""

        def found(name: str) -> int:
            pids = [e["pid"] for e in self._events if e.get("event") == name]
            return int(str(pids[0])) if pids else 0

        with self._news:
            if not self._news.wait_for(lambda: found(event) or found("ended"), _START_LIMIT):
                raise TimeoutError(f"no {event!r} event within {_START_LIMIT:g} s")
            if pid := found(event):
                return pid
        raise ChildProcessError(f"it ended without a {event!r} event")

    def running(self) -> list[int]:
        return list(marked(self.mark))

    def gone_after(self, limit: float) -> float | None:
        """Seconds from now until none of its processes runs; None if one stays."""
        began = time.monotonic()
        while self.running():
            if time.monotonic() - began > limit:
                return None
            time.sleep(0.005)
        return time.monotonic() - began

    def end(self) -> None:
        """End all of it, by force."""
        self.host.kill()
        self.host.wait()
        for pid in self.running():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.gone_after(LIMIT)
        self._reader.join(LIMIT)
        for stream in (self.host.stdin, self.host.stdout):
            if stream is not None and not self._reader.is_alive():
                stream.close()


def marked(mark: str) -> Iterator[int]:
    """Processes with `mark` in their environment. A zombie has none, and does not run."""
    wanted = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


def parent_of(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def unpacked(temp: Path) -> list[Path]:
    return sorted(temp.glob("_MEI*"))


def is_one_file(command: Sequence[str], temp: Path) -> bool:
    """Whether two processes make one start. Raises what `pid_of` raises."""
    start = Start(command, temp)
    try:
        return start.pid_of("ready") != start.pid_of("spawned")
    finally:
        start.end()
        _clear(temp)


def one(
    command: Sequence[str],
    temp: Path,
    target: Target,
    number: signal.Signals,
    moment: Moment,
    *,
    one_file: bool,
) -> Outcome:
    """One cell of the matrix, measured."""
    start = Start(command, temp)
    try:
        spawned = start.pid_of("spawned")
        if moment == "ready":
            start.pid_of("ready")
        else:
            time.sleep(moment / 1000)
        pid = _pid(start, spawned, target, one_file=one_file)
        if not pid:
            start.end()
            _clear(temp)  # ours: it was cut short by force
            return Outcome(target, number, moment, absent=True)
        os.kill(pid, number)
        if target == "host":
            start.host.wait(LIMIT)
        seconds = start.gone_after(LIMIT)
    finally:
        start.end()
    found = unpacked(temp)
    left = _after_next_start(command, temp) if found else 0
    return Outcome(target, number, moment, seconds, swept=bool(found), left=left)


def _pid(start: Start, spawned: int, target: Target, *, one_file: bool) -> int:
    if target == "host":
        return start.host.pid
    if not one_file or target == "bootloader":
        return spawned if spawned in start.running() else 0
    return next((pid for pid in start.running() if parent_of(pid) == spawned), 0)


def _after_next_start(command: Sequence[str], temp: Path) -> int:
    """How many directories are left when the program was started and stopped once more."""
    start = Start(command, temp)
    try:
        start.pid_of("ready")
        deadline = time.monotonic() + _SWEEP_LIMIT
        while len(unpacked(temp)) > 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        start.host.kill()  # its stdin ends, and so does the program
        start.host.wait()
        start.gone_after(LIMIT)
    finally:
        start.end()
    left = len(unpacked(temp))
    _clear(temp)
    return left


def _clear(temp: Path) -> None:
    import shutil

    for directory in unpacked(temp):
        shutil.rmtree(directory, ignore_errors=True)


def matrix(
    command: Sequence[str],
    temp: Path,
    *,
    targets: Sequence[Target],
    moments: Sequence[Moment] = MOMENTS,
    one_file: bool,
) -> list[Outcome]:
    """Every cell, one after the other, said aloud as it comes."""
    outcomes = []
    for target in targets:
        for number in SIGNALS:
            for moment in moments:
                outcomes.append(one(command, temp, target, number, moment, one_file=one_file))
                print(f"{target}, {number.name}, {named(moment)}: {outcomes[-1]}", file=sys.stderr)
    return outcomes


def named(moment: Moment) -> str:
    return moment if isinstance(moment, str) else f"{moment} ms"


def table(outcomes: Iterable[Outcome]) -> str:
    """Markdown: a row for whom and how, a column for when."""
    rows: dict[tuple[Target, signal.Signals], dict[str, str]] = {}
    for outcome in outcomes:
        row = rows.setdefault((outcome.target, outcome.number), {})
        row[named(outcome.moment)] = str(outcome)
    columns = list(dict.fromkeys(moment for row in rows.values() for moment in row))
    lines = [f"| killed | by | {' | '.join(columns)} |", "|---|---|" + "---:|" * len(columns)]
    for (target, number), row in rows.items():
        cells = " | ".join(row.get(column, "") for column in columns)
        lines.append(f"| {target} | {number.name} | {cells} |")
    return "\n".join(lines)


def verdict(outcomes: Sequence[Outcome]) -> str:
    """The sentence under the table."""
    tried = [o for o in outcomes if not o.absent]
    failed = [o for o in tried if not o.passed]
    slowest = max((o.seconds for o in tried if o.seconds is not None), default=0.0)
    if failed:
        return f"{len(failed)} of {len(tried)} left something."
    swept = sum(o.swept for o in tried)
    return (
        f"{len(tried)} of {len(tried)} left nothing: the slowest was gone after {slowest:.2f} s, "
        f"{swept} temp directories were swept by the next start."
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Kill host, outer and inner process; look.")
    parser.add_argument("--exe", metavar="COMMAND", help="what to start (default: this source)")
    parser.add_argument("--model", metavar="DIR", help="serve this model")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the table here too")
    arguments = parser.parse_args(argv)
    if sys.platform != "linux":
        print("The orphan matrix reads /proc: run it on Linux.", file=sys.stderr)
        return 2
    program = shlex.split(arguments.exe or "") or [sys.executable, "-m", "cortex_embed"]
    command = [*program, "serve", "--sidecar"]
    command += ["--model", arguments.model] if arguments.model else []
    with tempfile.TemporaryDirectory(prefix="orphans-", ignore_cleanup_errors=True) as name:
        temp = Path(name)
        try:
            one_file = is_one_file(command, temp)
        except (TimeoutError, ChildProcessError) as why:
            print(f"{shlex.join(command)}: {why}", file=sys.stderr)
            return 1
        targets: list[Target] = ["bootloader", "inner", "host"] if one_file else ["inner", "host"]
        outcomes = matrix(command, temp, targets=targets, one_file=one_file)
    report = f"{table(outcomes)}\n\n{verdict(outcomes)}"
    print(report)
    if arguments.out is not None:
        arguments.out.write_text(report + "\n", encoding="utf-8")
    return 0 if all(o.passed for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
