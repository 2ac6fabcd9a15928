"""What the HTTP layer costs: requests a second with the hash provider in the model's place.

    python build/bench/http_layer.py [--rounds 9] [--seconds 0.7] [--publish] [--profile]

Each case runs in turn with a bare aiohttp server that answers a constant body of the same size,
on the same cores, with the same client, in many short turns: the ratio is what can be compared
between machines and between busy hours. It must never publish a table without that peer.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pstats
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # As a script, the path starts with this directory; `bench` and its neighbours are one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import start_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MODEL = "hash"
WORDS = "A sentence of the length that people search with, number {}."
_PATIENCE = 30.0
_ROWS = 14
_BUILD = Path(__file__).resolve().parent.parent
ENVIRONMENT = {
    "PATH": os.environ.get("PATH", ""),
    "PYTHONPATH": f"{_BUILD}{os.pathsep}{_BUILD.parent / 'app'}",
}
HEAD = (
    "| request | texts | connections | requests/s | bare aiohttp, requests/s | ratio | p50, ms |\n"
    "|---|---:|---:|---:|---:|---:|---:|"
)


@dataclass(frozen=True, slots=True)
class Case:
    """One request and how many connections send it at a time."""

    path: str
    texts: int
    encoding: str
    connections: int
    model: str = _MODEL
    headers: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.path} {self.encoding}" + (", with a request id" if self.headers else "")

    def body(self) -> bytes:
        texts = [WORDS.format(number) for number in range(self.texts)]
        if self.path == "/embed":
            return json.dumps({"texts": texts}).encode()
        fields = {"model": self.model, "input": texts, "encoding_format": self.encoding}
        return json.dumps(fields).encode()


_KINDS: tuple[tuple[str, str, int, tuple[str, ...]], ...] = (
    ("/v1/embeddings", "float", 1, ()),
    # An id is echoed, so these take the whole way through the server, each time.
    ("/v1/embeddings", "float", 1, ("X-Request-Id: one-of-the-bench",)),
    ("/v1/embeddings", "float", 256, ()),
    ("/v1/embeddings", "base64", 1, ()),
    ("/v1/embeddings", "base64", 256, ()),
    ("/embed", "float", 1, ()),
    ("/embed", "float", 256, ()),
)
CASES = tuple(
    Case(path, texts, encoding, connections, headers=headers)
    for path, encoding, texts, headers in _KINDS
    for connections in (1, 64)
)


@contextlib.contextmanager
def serving(command: Sequence[str], port: int) -> Iterator[str]:
    """The URL of a server that answers, stopped in order at the end. Raises RuntimeError."""
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        with contextlib.suppress(OSError, HTTPException):
            connection = HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
            connection.request("GET", "/livez")
            if connection.getresponse().status == 200:
                connection.close()
                return
        time.sleep(0.02)
    raise RuntimeError("the server did not answer")


def ours(port: int, profile: Path | None = None) -> list[str]:
    """The command of our server; with `profile`, cProfile's figures are written there."""
    profiler = ["-m", "cProfile", "-o", str(profile)] if profile else []
    serve = ["-m", "cortex_embed", "serve", "--model", _MODEL, "--port", str(port)]
    return [sys.executable, *profiler, *serve]


def bare(port: int, answer: Path) -> list[str]:
    """The command of the peer that answers the content of `answer`."""
    worker = _BUILD / "bench" / "workers" / "bare_http.py"
    return [sys.executable, str(worker), str(port), str(answer)]


def load(url: str, case: Case, body: Path, seconds: float) -> dict[str, Any]:
    """The figures of one run of the load generator. Raises RuntimeError."""
    spec = {"url": url, "path": case.path, "body": str(body), "batch": case.texts}
    spec["headers"] = case.headers
    spec |= {"concurrency": case.connections, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-m", "bench.loadgen", json.dumps(spec)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=seconds + 120, check=False,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout or json.dumps({"error": done.stderr[-500:]}))
    if "error" in found:
        raise RuntimeError(f"{case.title}: {found['error']}")
    return found


def answer_of(url: str, case: Case) -> bytes:
    """One answer of ours, for the peer to repeat. Raises RuntimeError."""
    connection = HTTPConnection(url.removeprefix("http://"), timeout=_PATIENCE)
    connection.request("POST", case.path, case.body(), {"Content-Type": "application/json"})
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise RuntimeError(f"{case.title}: {response.status} {body[:300]!r}")
    return body


def measure(case: Case, scratch: Path, rounds: int, seconds: float) -> str:
    """One row of the table: medians of `rounds`, ours and the peer's in turn."""
    body, answer = scratch / "body", scratch / "answer"
    body.write_bytes(case.body())
    own_port, peer_port = start_time.free_port(), start_time.free_port()
    with serving(ours(own_port), own_port) as own:
        answer.write_bytes(answer_of(own, case))
        with serving(bare(peer_port, answer), peer_port) as peer:
            pairs = [
                (load(own, case, body, seconds), load(peer, case, body, seconds))
                for _ in range(rounds)
            ]
    return report(case, pairs)


def report(case: Case, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    """A row from the samples of ours and of the peer, round by round."""

    def median(figures: list[float]) -> float:
        return float(statistics.median(figures))

    rates = [(own["requests_per_second"], peer["requests_per_second"]) for own, peer in pairs]
    own, peer = median([one for one, _ in rates]), median([one for _, one in rates])
    # Of each round, not of the medians: a disturbance then hits both sides of a ratio.
    ratio = median([one / other for one, other in rates])
    p50 = median([one["p50_ms"] for one, _ in pairs])
    return (
        f"| {case.title} | {case.texts} | {case.connections} | {own:,.0f} | {peer:,.0f} | "
        f"{ratio:.2f} | {p50:.2f} |"
    )


def profiled(case: Case, scratch: Path, seconds: float) -> str:
    """Where the server's time goes in `case`: the functions with most time of their own."""
    body, figures = scratch / "body", scratch / "profile"
    body.write_bytes(case.body())
    port = start_time.free_port()
    with serving(ours(port, figures), port) as url:
        load(url, case, body, seconds)
    return top(pstats.Stats(str(figures)), f"{case.title}, {case.texts} texts")


def top(stats: Any, title: str) -> str:
    """The functions that took most time themselves, without the wait for the next request."""
    rows = [
        (own, total, calls, f"{Path(file).name}:{line} {name}" if line else name)
        for (file, line, name), (_, calls, own, total, _) in stats.stats.items()
        if "select.epoll" not in name and "select.kqueue" not in name
    ]
    busy = sum(row[0] for row in rows)
    rows.sort(reverse=True)
    lines = [f"{title}: {busy:.1f} s busy (import included)", "  self %  with callees %  calls"]
    lines += [
        f"  {100 * own / busy:6.1f}  {100 * total / busy:14.1f}  {calls:8}  {name}"
        for own, total, calls, name in rows[:_ROWS]
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure the HTTP layer.")
    parser.add_argument("--rounds", type=int, default=9, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.7, metavar="S")
    parser.add_argument("--publish", action="store_true", help="write README.md's table")
    parser.add_argument("--profile", action="store_true", help="also say where the time goes")
    args = parser.parse_args(arguments)
    busy = f", load average {os.getloadavg()[0]:.1f} before" if hasattr(os, "getloadavg") else ""
    with tempfile.TemporaryDirectory(prefix="http-") as scratch:
        table = HEAD
        print(HEAD)
        for case in CASES:
            row = measure(case, Path(scratch), args.rounds, args.seconds)
            print(row, flush=True)
            table += "\n" + row
        if args.profile:
            for case in CASES:
                if case.connections > 1:
                    print("\n" + profiled(case, Path(scratch), args.seconds), flush=True)
    if args.publish:
        when = f"{datetime.now(UTC).date()}, {start_time.processor()}{busy}"
        rounds = f"medians of {args.rounds} interleaved rounds of {args.seconds:g} s"
        start_time.publish(f"{when}, {rounds}.\n\n{table}", "http")
    return 0


if __name__ == "__main__":
    sys.exit(main())
