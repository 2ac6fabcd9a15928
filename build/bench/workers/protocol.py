"""What every worker speaks: one JSON object a line in, one a line out.

    {"op": "load", "model": {...}, "threads": 2, "options": {...}}  -> {"versions": {...}, ...}
    {"op": "encode", "texts": FILE, "vectors": FILE or null}        -> {"seconds": ..., ...}
    {"op": "latency", "texts": FILE, "count": 50}                   -> {"p50_ms": ..., ...}
    {"op": "call", "name": ..., "arguments": {...}}                 -> what that method returns
    {"op": "quit"}

It runs in a peer's own environment, so it must import nothing but the standard library and
numpy, and nothing a peer prints may reach the protocol: descriptor 1 is ours alone.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]


class Peer:
    """One way to embed texts in this process. Subclasses fill in `load` and `encode`."""

    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        """Get ready to embed; the versions of what computes."""
        raise NotImplementedError

    def encode(self, texts: Sequence[str]) -> Vectors:
        """L2-normalized vectors, in order, as fast as this peer can."""
        raise NotImplementedError

    def latencies(self, texts: Sequence[str]) -> list[float]:
        """Seconds of each text embedded alone."""
        seconds = []
        for text in texts:
            started = time.perf_counter()
            self.encode([text])
            seconds.append(time.perf_counter() - started)
        return seconds

    def close(self) -> None:
        """Release what would keep the process."""


def serve(peer: Peer) -> None:
    """Answer until `quit` or the end of the input. A failed operation is an answer too."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        if request["op"] == "quit":
            break
        try:
            answer = _answer(peer, request)
        except Exception as why:  # whatever a peer raises is the result
            last = traceback.format_exception(why)[-6:]
            answer = {"error": f"{type(why).__name__}: {why}", "trace": "".join(last)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    peer.close()
    # Not a return: a peer's threads may never end by themselves.
    os._exit(0)


def _answer(peer: Peer, request: dict[str, Any]) -> dict[str, Any]:
    operation = request["op"]
    if operation == "load":
        started = time.perf_counter()
        versions = peer.load(request["model"], request["threads"], request["options"])
        return {"seconds": time.perf_counter() - started, "versions": versions, "rss_mb": rss()}
    if operation == "encode":
        return _encode(peer, _read(request["texts"]), request["vectors"])
    if operation == "latency":
        texts = _read(request["texts"])
        chosen = [texts[n % len(texts)] for n in range(request["count"])]
        found = sorted(peer.latencies(chosen))
        return {
            "p50_ms": 1000 * found[len(found) // 2],
            "p99_ms": 1000 * found[min(len(found) - 1, len(found) * 99 // 100)],
        }
    if operation == "call":
        result: dict[str, Any] = getattr(peer, request["name"])(**request["arguments"])
        return result
    raise ValueError(f"unknown operation {operation!r}")


def _encode(peer: Peer, texts: list[str], target: str | None) -> dict[str, Any]:
    import numpy as np

    forget_peak()
    cpu, started = time.process_time(), time.perf_counter()
    vectors = peer.encode(texts)
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    if vectors.shape[0] != len(texts) or not np.isfinite(vectors).all():
        raise ValueError(f"vectors of shape {vectors.shape} for {len(texts)} texts, or not finite")
    if target:
        np.save(target, np.asarray(vectors, dtype=np.float32))
    return {"seconds": seconds, "cpu_seconds": cpu, "texts": len(texts), "peak_rss_mb": rss("HWM")}


def _read(path: str) -> list[str]:
    texts: list[str] = json.loads(Path(path).read_text(encoding="utf-8"))
    return texts


def normalized(vectors: Any) -> Vectors:
    """Rows of length 1, float32."""
    import numpy as np

    rows = np.asarray(vectors, dtype=np.float32)
    result: Vectors = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return result


def rss(kind: str = "RSS") -> float | None:
    """Resident memory of this process in MB, or its peak ("HWM"); None where unknown."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"Vm{kind}:"):
                return int(line.split()[1]) * 1024 / 1e6
    except OSError:
        pass
    return None


def forget_peak() -> None:
    """Make the peak count from now (proc(5), clear_refs); else it is the whole process's."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def versions_of(*packages: str) -> dict[str, str]:
    """Installed versions by distribution name."""
    from importlib.metadata import version

    return {name: version(name) for name in packages}
