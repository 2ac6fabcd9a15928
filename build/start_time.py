"""How long a start takes: exec to first vector over HTTP, against a plain one-file build.

    python build/start_time.py [--exe dist/cortex-embed] [--plain FILE] [--runs 11]

Runs are interleaved and medians are printed, with the minimum, the maximum and the peak
memory of the serving process. It must never be a test: a time is a number, not a verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE = 60.0
_BODY = json.dumps({"texts": ["How long does a start take?"]})
_JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class Start:
    """Seconds after exec, and MB. `listening` is the first accepted connection."""

    listening: float
    answering: float
    vector: float
    stop: float
    peak_mb: float


def measure(exe: Path, home: Path, flags: Sequence[str] = ()) -> Start:
    """One start and stop of `exe` in `home`. Raises RuntimeError when it gives no vector."""
    port = free_port()
    environment = {"HOME": str(home), "PATH": "/nonexistent", "TMPDIR": str(home)}
    began = time.perf_counter()
    process = subprocess.Popen(
        [str(exe), "serve", "--port", str(port), *flags],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        listening = _connected(port, process) - began
        answering = _answering(port) - began
        vector = _first_vector(port) - began
        peak = peak_mb(process.pid)
    except (OSError, RuntimeError, http.client.HTTPException) as why:
        process.kill()
        words = process.communicate()[1].decode(errors="replace")
        raise RuntimeError(f"{exe}: {why}; {words[-500:]}") from None
    stopping = time.perf_counter()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=_PATIENCE)
    return Start(listening, answering, vector, time.perf_counter() - stopping, peak)


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _connected(port: int, process: subprocess.Popen[bytes]) -> float:
    deadline = time.perf_counter() + _PATIENCE
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"ended with {process.returncode}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.001)
        else:
            return time.perf_counter()
    raise RuntimeError("never listened")


def _answering(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    connection.request("GET", "/livez")
    connection.getresponse().read()
    connection.close()
    return time.perf_counter()


def _first_vector(port: int) -> float:
    deadline = time.perf_counter() + _PATIENCE
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
    while time.perf_counter() < deadline:
        connection.request("POST", "/embed", _BODY, _JSON)
        response = connection.getresponse()
        body = response.read()
        if response.status == 200:
            moment = time.perf_counter()
            if not json.loads(body)["embeddings"][0]:
                raise RuntimeError("an empty vector")
            connection.close()
            return moment
        if response.status != 503:
            raise RuntimeError(f"answered {response.status}: {body[:200]!r}")
        time.sleep(0.001)
    raise RuntimeError("gave no vector")


def peak_mb(pid: int) -> float:
    """The largest peak memory among `pid` and its children (the bootloader has one child)."""
    peaks = []
    for one in (pid, *children(pid)):
        with contextlib.suppress(OSError):
            status = Path(f"/proc/{one}/status").read_text(encoding="utf-8")
            found = re.search(r"VmHWM:\s+(\d+) kB", status)
            peaks.append(int(found[1]) * 1024 / 1e6 if found else 0.0)
    return max(peaks, default=0.0)


def children(pid: int) -> list[int]:
    with contextlib.suppress(OSError):
        raw = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8")
        return [int(one) for one in raw.split()]
    return []


def build_plain(out: Path, model: Path) -> Path:
    """What `pyinstaller --onefile` makes of the same program, for comparison."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    root = Path(__file__).resolve().parent.parent
    package = root / "app" / "cortex_embed"
    data = [
        (model, "cortex_embed/embedded"),
        (package / "models/catalogue.toml", "cortex_embed/models"),
    ]
    schema = package / "server" / "sidecar.schema.json"
    data += [(schema, "cortex_embed/server")] if schema.exists() else []
    flags = [f"--add-data={source}{os.pathsep}{dest}" for source, dest in data]
    command = [sys.executable, "-m", "PyInstaller", "--onefile", "--name", "cortex-embed", *flags]
    command += ["--paths", str(root / "app"), "--workpath", str(out / "work")]
    command += ["--specpath", str(out), "--distpath", str(out), "--log-level", "ERROR"]
    entry = out / "plain.py"
    entry.write_text("from cortex_embed.cli import main\nmain()\n", encoding="utf-8")
    subprocess.run([*command, str(entry)], check=True, cwd=root)
    return out / "cortex-embed"


def report(title: str, starts: Sequence[Start]) -> str:
    """One row: medians of all, the range of the first vector."""

    def ms(name: str) -> float:
        return 1000 * float(statistics.median(getattr(one, name) for one in starts))

    vectors = [one.vector * 1000 for one in starts]
    return (
        f"| {title} | {ms('listening'):.0f} | {ms('answering'):.0f} | {ms('vector'):.0f} "
        f"[{min(vectors):.0f}-{max(vectors):.0f}] | {ms('stop'):.0f} | "
        f"{statistics.median(one.peak_mb for one in starts):.0f} |"
    )


HEAD = (
    "| ms, medians | listening | answering | first vector [range] | stop | peak RSS, MB |\n"
    "|---|---:|---:|---:|---:|---:|"
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure starts.")
    parser.add_argument("--exe", type=Path, action="append", metavar="FILE")
    parser.add_argument(
        "--plain",
        type=Path,
        metavar="FILE",
        help="a plain --onefile build, made anew where missing",
    )
    parser.add_argument("--no-plain", action="store_true", help="without the comparison")
    parser.add_argument("--publish", action="store_true", help="write README.md's table")
    parser.add_argument("--runs", type=int, default=11, metavar="N")
    parser.add_argument(
        "--dropped", action="store_true", help="also with dropped page cache (root)"
    )
    args = parser.parse_args(arguments)
    dist = Path(__file__).resolve().parent.parent / "dist"
    exes = args.exe or [dist / "cortex-embed", dist / "onedir" / "cortex-embed-onedir"]
    if not args.no_plain:
        exes.append(args.plain or build_plain(dist / ".plain", dist / ".work" / "model"))
    rows: dict[str, list[Start]] = {}
    with tempfile.TemporaryDirectory(prefix="start-") as scratch:
        for number in range(args.runs + 1):
            for at, exe in enumerate(exes):
                home = Path(scratch, f"home{at}")
                home.mkdir(exist_ok=True)
                title = f"{exe.parent.name}/{exe.name}" + (", very first" if not number else "")
                rows.setdefault(title, []).append(measure(exe, home))
        if args.dropped:
            for at, exe in enumerate(exes):
                subprocess.run(["sync"], check=True)
                Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")
                title = f"{exe.parent.name}/{exe.name}, dropped page cache"
                rows[title] = [measure(exe, Path(scratch, f"home{at}"))]
    table = "\n".join([HEAD, *(report(title, starts) for title, starts in rows.items())])
    print(table)
    if args.publish:
        publish(
            f"{datetime.now(UTC).date()}, {processor()}, {args.runs} interleaved runs.\n\n{table}"
        )
    return 0


def processor() -> str:
    """What this machine calls its processor, and how many of it may be used."""
    found = ""
    with contextlib.suppress(OSError):
        info = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = (re.search(r"model name\s*: (.+)", info) or [""] * 2)[1]
    return f"{found or platform.machine()}, {os.cpu_count()} cores, {platform.system()}"


def publish(block: str, name: str = "start") -> None:
    """Put `block` between README.md's markers `name`. Raises ValueError where they are missing."""
    readme = Path(__file__).resolve().parent.parent / "README.md"
    before, opening, rest = readme.read_text(encoding="utf-8").partition(f"<!-- {name} -->\n")
    _, closing, after = rest.partition(f"<!-- /{name} -->")
    if not opening or not closing:
        raise ValueError(f"README.md has no block marked {name!r}")
    readme.write_text(before + opening + block + "\n" + closing + after, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
