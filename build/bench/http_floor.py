"""How much of HTTP's cost is ours: our server beside two that do next to nothing.

    python build/bench/http_floor.py MODEL [--precision int8] [--clients 64] [--rounds 3] ...

The service embeds one short text a request: for callers in its process, for clients of a server
that knows no HTTP (it answers a constant at what looks like a request's end), for clients of a bare
aiohttp server that answers the same, and for clients of ours; in turn, on the same cores, with the
same client. MODEL is a directory. It must never be quoted without the row of nothing between.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":
    # As a script, the path starts with this directory; `bench` and its neighbours are one above.
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import start_time
from bench.http_layer import ENVIRONMENT, WORDS, Case, answer_of, load, serving

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORKER = Path(__file__).resolve().parent / "workers" / "floor.py"
HEAD = (
    "| between client and service | requests/s | × nothing | p50, ms | × nothing |\n"
    "|---|---:|---:|---:|---:|"
)
NONE, BYTES, AIOHTTP, OURS = "nothing", "bytes", "aiohttp", "cortex-embed"


def worker(model: Path, precision: str, *arguments: object) -> list[str]:
    """The command of workers/floor.py with the text of the benchmark's one request."""
    text = WORDS.format(0)
    return [sys.executable, str(_WORKER), str(model), precision, text, *map(str, arguments)]


def in_process(model: Path, precision: str, clients: int, seconds: float) -> dict[str, Any]:
    """The figures without a server. Raises CalledProcessError."""
    command = worker(model, precision, NONE, clients, seconds)
    done = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, timeout=seconds + 120, check=True
    )
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def measure(
    model: Path, precision: str, clients: int, rounds: int, seconds: float
) -> dict[str, list[dict[str, Any]]]:
    """The figures of every round, by what is between. Raises RuntimeError."""
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    case = Case("/v1/embeddings", 1, "float", clients, model=manifest["id"])
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in (NONE, BYTES, AIOHTTP, OURS)}
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="floor-")))
        body, answer = scratch / "body", scratch / "answer"
        body.write_bytes(case.body())
        port = start_time.free_port()
        serve = ["-m", "cortex_embed", "serve", "--model", str(model), "--precision", precision]
        command = [sys.executable, *serve, "--port", str(port), "--load-wait", "60"]
        urls = {OURS: stack.enter_context(serving(command, port))}
        answer.write_bytes(answer_of(urls[OURS], case))
        for kind in (BYTES, AIOHTTP):
            port = start_time.free_port()
            command = worker(model, precision, kind, port, answer)
            urls[kind] = stack.enter_context(serving(command, port))
        for _ in range(rounds):
            found[NONE].append(in_process(model, precision, clients, seconds))
            for kind, url in urls.items():
                found[kind].append(load(url, case, body, seconds))
    return found


def report(found: dict[str, list[dict[str, Any]]]) -> str:
    """The table: medians of the rounds."""
    rows = {
        kind: [
            statistics.median(one[key] for one in of) for key in ("requests_per_second", "p50_ms")
        ]
        for kind, of in found.items()
    }
    rate, p50 = rows[NONE]
    lines = [
        f"| {kind} | {own:,.0f} | {own / rate:.2f} | {wait:.2f} | {wait / p50:.2f} |"
        for kind, (own, wait) in rows.items()
    ]
    return "\n".join([HEAD, *lines])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure what HTTP costs at the least.")
    parser.add_argument("model", type=Path)
    parser.add_argument("--precision", default="int8")
    parser.add_argument("--clients", type=int, default=64, metavar="N")
    parser.add_argument("--rounds", type=int, default=3, metavar="N")
    parser.add_argument("--seconds", type=float, default=3.0, metavar="S")
    args = parser.parse_args(arguments)
    if not (args.model / "manifest.json").is_file():
        parser.error(f"{args.model} has no manifest.json: name the directory of an exported model")
    found = measure(args.model, args.precision, args.clients, args.rounds, args.seconds)
    print(f"{args.precision}, {args.clients} clients, {start_time.processor()}\n\n{report(found)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
