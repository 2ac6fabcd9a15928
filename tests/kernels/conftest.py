"""What the tests of the kernels share."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.kernels.binding import aligned
from tests.kernels.processors import compile_probe

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_POINTER, _LONG, _INT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32


class Probe:
    """probe.c, called with arrays."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        library.probe_scratch.restype = _LONG
        library.probe_scratch.argtypes = [_LONG, _LONG, _INT]
        library.probe_attention.argtypes = [
            _INT, _POINTER, _LONG, _POINTER, _POINTER, _LONG, _INT, _POINTER, _POINTER,
        ]  # fmt: skip
        for name, result, arguments in (
            ("packed", _LONG, [_INT, _INT]),
            ("room", _LONG, [_LONG, _INT]),
            ("pack", None, [_POINTER, _POINTER, _INT, _INT, _POINTER]),
            ("linear", None, [_POINTER, _LONG, _INT, _INT, _POINTER, _POINTER, _POINTER]),
        ):
            function = getattr(library, f"probe_{name}")
            function.restype, function.argtypes = result, arguments

    def attention(self, q: Floats, k: Floats, v: Floats, *, integers: bool) -> Floats:
        """float32 [queries, width], [count, width] twice → float32 [queries, width]."""
        count, width = k.shape
        assert all(one.dtype == np.float32 and one.flags.c_contiguous for one in (q, k, v))
        size = self._library.probe_scratch(len(q), count, width)
        scratch = np.full(size, np.nan, dtype=np.float32)
        out = np.empty_like(q)
        self._library.probe_attention(
            integers, q.ctypes.data, len(q), k.ctypes.data, v.ctypes.data, count, width,
            scratch.ctypes.data, out.ctypes.data,
        )  # fmt: skip
        return out

    def linear(self, a: Floats, weight: Floats, bias: Floats) -> Floats:
        """float32 [count, inputs], [inputs, outputs], [outputs] → float32 [count, outputs]: a
        linear layer in floats. Inputs and outputs are multiples of 64."""
        count, (inputs, outputs) = len(a), weight.shape
        assert all(x.dtype == np.float32 and x.flags.c_contiguous for x in (a, weight, bias))
        packed = aligned(self._library.probe_packed(inputs, outputs))
        self._library.probe_pack(
            weight.ctypes.data, bias.ctypes.data, inputs, outputs, packed.ctypes.data
        )
        room = aligned(self._library.probe_room(count, max(inputs, outputs)))
        room[:] = 0xFF
        out = np.zeros((count, outputs), np.float32)
        self._library.probe_linear(
            a.ctypes.data, count, inputs, outputs, packed.ctypes.data, room.ctypes.data,
            out.ctypes.data,
        )  # fmt: skip
        return out

    def function(self, name: str, x: Floats) -> Floats:
        """`exponential`, `gelu` or `near_gelu` of float32 [n], n a multiple of 16."""
        assert x.dtype == np.float32
        assert len(x) % 16 == 0
        call = getattr(self._library, f"probe_{name}")
        call.argtypes = [_POINTER, _LONG, _POINTER]
        out = np.empty_like(x)
        call(x.ctypes.data, len(x), out.ctypes.data)
        return out


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory, kernel_sets: tuple[str, ...]) -> Probe:
    """Of this processor's best instruction set that has floats: test_processors.py holds that all
    are alike."""
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    from cortex_embed.kernels import best

    return Probe(
        ctypes.CDLL(str(compile_probe(best("fp32", kernel_sets), tmp_path_factory.mktemp("probe"))))
    )
