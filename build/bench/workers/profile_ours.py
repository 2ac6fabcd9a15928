"""Worker: cortex-embed with ONNX Runtime's own profiler on, to see where the time goes.

It never gives a headline figure: profiling costs a little. It says which share of the measured
GEMM peak the linear layers alone reach, and the seconds of every operator.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.workers.ours import Ours
from bench.workers.protocol import serve

if TYPE_CHECKING:
    from collections.abc import Iterator


class Profiled(Ours):
    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        from cortex_embed.config import prepare_runtime_environment

        prepare_runtime_environment()
        import onnxruntime as ort

        self._sessions: list[Any] = []
        self._threads = threads
        self._folder = tempfile.TemporaryDirectory(prefix="bench-profile-")
        folder = Path(self._folder.name)
        original = ort.InferenceSession

        def profiled(graph: Any, sess_options: Any = None, *rest: Any, **named: Any) -> Any:
            own = sess_options or ort.SessionOptions()
            own.enable_profiling = True
            own.profile_file_prefix = str(folder / f"session{len(self._sessions)}")
            session = original(graph, own, *rest, **named)
            self._sessions.append(session)
            return session

        ort.InferenceSession = profiled
        return super().load(model, threads, options)

    def profile(self, texts: str) -> dict[str, Any]:
        """Seconds by operator, and GFLOP/s of the linear layers as if all threads ran them.

        Runs side by side on one thread each: a linear layer's rate is that of one thread, so
        the whole machine's is `threads` times it.
        """
        self.encode(json.loads(Path(texts).read_text(encoding="utf-8")))
        seconds: dict[str, float] = defaultdict(float)
        flops = linear_seconds = 0.0
        for session in self._sessions:
            for operator, duration, done in _kernels(Path(session.end_profiling())):
                seconds[operator] += duration
                if done:
                    flops += done
                    linear_seconds += duration
        self._folder.cleanup()
        total = sum(seconds.values())
        ordered = sorted(seconds.items(), key=lambda item: -item[1])
        rate = flops / linear_seconds / 1e9 * self._threads if linear_seconds else None
        return {
            "operators": {name: {"seconds": s, "share": s / total} for name, s in ordered},
            "linear_gflops": rate,
            "linear_share_of_time": linear_seconds / total,
        }


def _kernels(file: Path) -> Iterator[tuple[str, float, float]]:
    """Operator, seconds, and the floating-point operations where it is a linear layer."""
    for event in json.loads(file.read_text(encoding="utf-8")):
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        about = event["args"]
        yield about["op_name"], event["dur"] / 1e6, linear_flops(about)


def linear_flops(about: dict[str, Any]) -> float:
    """Operations of a product with a constant weight; 0 for anything else.

    The profiler lists no packed weight: the shapes are those of the activations, of biases and
    scales, and of the result. A product inside attention has two inputs of three axes or more.
    """
    if "MatMul" not in about["op_name"] and "Gemm" not in about["op_name"]:
        return 0.0
    inputs = [next(iter(s.values())) for s in about.get("input_type_shape", [])]
    results = [next(iter(s.values())) for s in about.get("output_type_shape", [])]
    if not inputs or not results or sum(len(shape) >= 3 for shape in inputs) > 1:
        return 0.0
    flops: float = 2.0 * math.prod(inputs[0]) * results[0][-1]
    return flops


if __name__ == "__main__":
    serve(Profiled())
