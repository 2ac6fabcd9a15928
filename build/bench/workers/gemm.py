"""Worker: the processor's limit as ONNX Runtime reaches it, one large product.

A MatMul 2048 x 2048 x 2048 with a constant right side, as a linear layer has, in float32, and
MatMulInteger (uint8 x int8) for int8. It must run in the same run as what is compared with it.
"""

from __future__ import annotations

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from bench.workers.protocol import Peer, serve, versions_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.workers.protocol import Vectors

_N = 2048


class Gemm(Peer):
    def load(self, model: dict[str, Any], threads: int, options: dict[str, Any]) -> dict[str, str]:
        self._threads = threads
        return versions_of("onnxruntime")

    def encode(self, texts: Sequence[str]) -> Vectors:
        raise NotImplementedError

    def peak(self, repeats: int) -> dict[str, Any]:
        """GFLOP/s (int8: 10^9 operations/s): the better of all threads in one product, and of as
        many products side by side on one thread each."""
        found: dict[str, Any] = {}
        for kind in ("fp32", "int8"):
            one = self._seconds([self._runner(kind, self._threads)], repeats)
            many = self._seconds([self._runner(kind, 1) for _ in range(self._threads)], repeats)
            found[kind] = 2 * _N**3 * max(1 / one, self._threads / many) / 1e9
        return found

    def _seconds(self, runners: list[Any], repeats: int) -> float:
        """Median time of one round in which each of `runners` runs once, side by side."""
        times = []
        with ThreadPoolExecutor(len(runners)) as pool:
            for _ in range(1 + repeats):
                started = time.perf_counter()
                for running in [pool.submit(run) for run in runners]:
                    running.result()
                times.append(time.perf_counter() - started)
        return statistics.median(times[1:])

    def _runner(self, kind: str, threads: int) -> Any:
        import numpy as np
        import onnxruntime as ort
        from onnx import TensorProto, helper, numpy_helper

        random = np.random.default_rng(1)
        left: Any
        right: Any
        if kind == "fp32":
            left = random.standard_normal((_N, _N), dtype=np.float32)
            right = random.standard_normal((_N, _N), dtype=np.float32)
            node, types = "MatMul", (TensorProto.FLOAT, TensorProto.FLOAT)
        else:
            left = random.integers(0, 255, (_N, _N), dtype=np.uint8)
            right = random.integers(-127, 127, (_N, _N), dtype=np.int8)
            node, types = "MatMulInteger", (TensorProto.UINT8, TensorProto.INT32)
        graph = helper.make_graph(
            [helper.make_node(node, ["x", "w"], ["y"])],
            "peak",
            [helper.make_tensor_value_info("x", types[0], [_N, _N])],
            [helper.make_tensor_value_info("y", types[1], [_N, _N])],
            [numpy_helper.from_array(right, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session: Any = ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        return lambda: session.run(None, {"x": left})


if __name__ == "__main__":
    serve(Gemm())
