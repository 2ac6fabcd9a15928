"""Run what was frozen, as a stranger's machine would: no Python, no home, an odd path.

    python build/smoke.py [--exe dist/cortex-embed] [--release]

Prints what it saw, size and start times, and exits 1 at the first thing that is wrong. No
release asset may leave without it. It must never run anything but the executable itself.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import platform_floor
import targets
from start_time import children, measure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
TEXTS = ("A cat sits on the mat.", "Der Zug fährt um acht.", "def f(x): return x + 1")
_PATIENCE = 60.0
_GONE = 2.0


class SmokeError(Exception):
    """What was expected, and what happened."""


class Smoke:
    """One executable, copied to a directory of its own."""

    def __init__(self, exe: Path, scratch: Path, *, release: bool = False) -> None:
        self.origin = exe
        self.release = release
        self.home = scratch / "home"
        self.home.mkdir()
        # A space and letters beyond ASCII: a person's own directory has them.
        place = scratch / "a plače"
        if (exe.parent / "_internal").is_dir():
            shutil.copytree(exe.parent, place, symlinks=True)
        else:
            place.mkdir()
            shutil.copy2(exe, place)
        self.exe = place / exe.name
        self.environment = {
            "HOME": str(self.home),
            "TMPDIR": str(self.home),
            "PATH": "/nonexistent",
        }
        if sys.platform == "win32":
            self.environment |= {k: os.environ[k] for k in ("SYSTEMROOT", "TEMP", "TMP")}
            self.environment["USERPROFILE"] = str(self.home)

    def command(self, *arguments: str) -> list[str]:
        return [str(self.exe), *arguments]

    def output(self, *arguments: str, code: int = 0) -> str:
        """stdout of one run. Raises SmokeError for another exit code."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            encoding="utf-8", timeout=_PATIENCE, check=False, cwd=self.home,
        )  # fmt: skip
        if done.returncode != code:
            raise SmokeError(f"{arguments} exited with {done.returncode}: {done.stderr[-800:]}")
        return done.stdout

    @contextmanager
    def sidecar(self, *flags: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
        """`serve --sidecar` and its ready event. Raises SmokeError."""
        process = subprocess.Popen(
            self.command("serve", "--sidecar", *flags),
            env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
        )  # fmt: skip
        try:
            assert process.stdout is not None  # noqa: S101 - PIPE above
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "error":
                    raise SmokeError(f"the sidecar says {event}")
                if event["event"] == "ready":
                    yield process, event
                    return
            raise SmokeError(f"the sidecar ended with {process.wait()} before it was ready")
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None  # noqa: S101 - PIPE above
                with suppress(OSError):
                    stream.close()


S = TypeVar("S", bound=Smoke)


def post(
    ready: dict[str, Any],
    token: str | None,
    path: str = "/embed",
    body: object = {"texts": TEXTS},
) -> tuple[int, Any]:
    where = urlsplit(ready["url"])
    connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=_PATIENCE)
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    connection.request("POST", path, json.dumps(body), headers)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def version(smoke: Smoke) -> str:
    return smoke.output("--version").strip()


def selftest(smoke: Smoke) -> str:
    return smoke.output("selftest").strip().splitlines()[-1]


def embed(smoke: Smoke) -> str:
    """One text's vector is the same from `embed` and from `serve`."""
    vectors = [json.loads(line)["embedding"] for line in smoke.output("embed", *TEXTS).splitlines()]
    if len(vectors) != len(TEXTS) or any(len(v) != len(vectors[0]) for v in vectors):
        raise SmokeError(f"{len(vectors)} vectors for {len(TEXTS)} texts")
    lengths = [sum(x * x for x in v) for v in vectors]
    if any(abs(length - 1) > 1e-5 for length in lengths):
        raise SmokeError(f"vectors of squared length {lengths}")
    served = served_vectors(smoke)
    worst = max(
        abs(a - b) for v, w in zip(vectors, served, strict=True) for a, b in zip(v, w, strict=True)
    )
    if worst > 1e-6:
        raise SmokeError(f"embed and serve differ by {worst:.1e}")
    return f"{len(vectors[0])} dimensions, embed and serve differ by {worst:.0e}"


def served_vectors(smoke: Smoke) -> list[list[float]]:
    with smoke.sidecar() as (_, ready):
        status, answer = post(ready, ready["token"])
    if status != 200:
        raise SmokeError(f"the sidecar answered {status}: {answer}")
    vectors: list[list[float]] = answer["embeddings"]
    return vectors


def token_ids(smoke: Smoke) -> str:
    """OpenAI's vocabulary is in the bundle: its ids of a text give the text's vector."""
    with smoke.sidecar() as (_, ready):
        body = {"model": ready["model"], "input": [[15339, 1917]]}
        status, by_ids = post(ready, ready["token"], "/v1/embeddings", body)
        _, by_text = post(ready, ready["token"], "/embed", {"texts": ["hello world"]})
    if status != 200:
        raise SmokeError(f"token ids of OpenAI's vocabulary were answered {status}: {by_ids}")
    if by_ids["data"][0]["embedding"] != by_text["embeddings"][0]:
        raise SmokeError("token ids of OpenAI's vocabulary gave another vector than their text")
    return 'OpenAI\'s [15339, 1917] is "hello world"'


def sidecar(smoke: Smoke) -> str:
    """A token that is needed, and an end with the host's end of stdin."""
    with smoke.sidecar() as (process, ready):
        refused, _ = post(ready, None)
        wrong, _ = post(ready, "wrong")
        right, _ = post(ready, ready["token"])
        if (refused, wrong, right) != (401, 401, 200):
            raise SmokeError(f"without, with a wrong, with the token: {refused}, {wrong}, {right}")
        assert process.stdin is not None  # noqa: S101 - PIPE above
        process.stdin.close()
        seconds = gone(process)
    return f"401 without token, 200 with; gone {seconds:.2f} s after stdin closed"


def sigterm(smoke: Smoke) -> str:
    with smoke.sidecar() as (process, _):
        began = time.perf_counter()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=_PATIENCE)
        if code != 0 and sys.platform != "win32":
            raise SmokeError(f"exit code {code} after SIGTERM")
        return f"exit code {code} after {time.perf_counter() - began:.2f} s"


def host_death(smoke: Smoke) -> str:
    """A host that is killed leaves nothing behind: its pid was watched."""
    if sys.platform != "linux":
        return "not tried on this system"
    host = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with smoke.sidecar("--parent-pid", str(host.pid)) as (process, _):
        host.kill()
        host.communicate()
        return f"gone {gone(process):.2f} s after the host was killed"


def outer_death(smoke: Smoke) -> str:
    """Whoever kills the process that was started kills the one that serves."""
    if sys.platform != "linux":
        return "not tried on this system"
    with smoke.sidecar() as (process, ready):
        inner = ready["pid"]
        if inner != process.pid and inner not in children(process.pid):
            raise SmokeError(f"pid {inner} of the ready event is not a child of {process.pid}")
        process.kill()
        process.wait()
        deadline = time.monotonic() + _GONE
        while Path(f"/proc/{inner}").exists():
            if time.monotonic() > deadline:
                raise SmokeError(f"{inner} is alive {_GONE} s after its bootloader was killed")
            time.sleep(0.01)
    return "nothing left"


def litter(smoke: Smoke) -> str:
    """After one more start nothing is left in the temp directory."""
    smoke.output("embed", "one more start")
    left = [p.name for p in smoke.home.iterdir() if p.name.startswith("_MEI")]
    if left:
        raise SmokeError(f"left in the temp directory: {left}")
    return "none"


def gone(process: subprocess.Popen[str]) -> float:
    began = time.perf_counter()
    try:
        process.wait(timeout=_GONE)
    except subprocess.TimeoutExpired:
        raise SmokeError(f"still running after {_GONE} s") from None
    return time.perf_counter() - began


def size(smoke: Smoke) -> str:
    if (smoke.exe.parent / "_internal").is_dir():
        tree = sum(p.stat().st_size for p in smoke.exe.parent.rglob("*") if p.is_file())
        return f"{tree / 1e6:.1f} MB in a directory"
    raw = smoke.exe.stat().st_size
    packed = smoke.home / "packed.gz"
    with smoke.exe.open("rb") as source, gzip.open(packed, "wb", compresslevel=6) as out:
        shutil.copyfileobj(source, out, 2**20)
    compressed = packed.stat().st_size
    packed.unlink()
    return f"{raw / 1e6:.1f} MB, {compressed / 1e6:.1f} MB as .gz"


def starts(smoke: Smoke) -> str:
    home = smoke.home.parent / "fresh"
    home.mkdir()
    first = measure(smoke.exe, home)
    warm = [measure(smoke.exe, home) for _ in range(5)]
    median = statistics.median(one.vector for one in warm)
    bound = statistics.median(one.listening for one in warm)
    return (
        f"first vector {median * 1000:.0f} ms after exec (the very first start "
        f"{first.vector * 1000:.0f}), listening after {bound * 1000:.0f} ms, peak RSS "
        f"{statistics.median(one.peak_mb for one in warm):.0f} MB"
    )


def floor(smoke: Smoke) -> str:
    """Nothing in the bundle asks for a newer system than the table promises.

    A release is held to it. Elsewhere it is told: this machine's Python sets it, not the source.
    """
    try:
        text, held = platform_floor.check(smoke.origin, targets.here(targets.load()))
    except ValueError as why:
        text, held = str(why), False
    if smoke.release and not held:
        raise SmokeError(text)
    return text if held else f"WARNING: {text}"


CHECKS: tuple[Callable[[Smoke], str], ...] = (
    version, selftest, embed, token_ids, sidecar, sigterm, host_death, outer_death, litter, size,
    floor, starts,
)  # fmt: skip


def passes(smoke: S, checks: Iterable[Callable[[S], str]]) -> bool:
    """Make the checks, one line each, up to the first that fails."""
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            print(f"  ok    {name}: {check(smoke)}", flush=True)
        except (SmokeError, RuntimeError, subprocess.SubprocessError, OSError) as why:
            print(f"  FAIL  {name}: {why}", flush=True)
            return False
    return True


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Smoke-test a frozen cortex-embed.")
    parser.add_argument("--exe", type=Path, action="append", metavar="FILE")
    parser.add_argument(
        "--release", action="store_true", help="fail when it needs a newer system than promised"
    )
    args = parser.parse_args(arguments)
    name = "cortex-embed.exe" if sys.platform == "win32" else "cortex-embed"
    onedir = "cortex-embed-onedir" + Path(name).suffix
    for exe in args.exe or [ROOT / "dist" / name, ROOT / "dist" / "onedir" / onedir]:
        print(f"{exe}:")
        with tempfile.TemporaryDirectory(prefix="smoke-") as scratch:
            smoke = Smoke(exe.resolve(), Path(scratch), release=args.release)
            if not passes(smoke, CHECKS):
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
