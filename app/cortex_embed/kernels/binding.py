"""The compiled kernels as Python calls them: kernels.h in ctypes' words, field by field.

It exists so that one file holds what has to agree with that header. It must never check what
it passes on: ids and lengths are the caller's to check, since C reads memory by them.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

from cortex_embed.errors import NativeEngineError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

ABI = 8
HAS_QUEUE = sys.platform != "win32"
"""Whether there is the queue of runs: it tells of them by a file descriptor, which no event loop
of Windows can wait on."""
_POINTER = ctypes.c_void_p
_QUEUE = (
    ("ck_queue_new", _POINTER, [ctypes.c_int32, ctypes.c_int32]),
    ("ck_queue_free", None, [_POINTER]),
    ("ck_serve", None, [_POINTER]),
    ("ck_close", None, [_POINTER]),
    ("ck_submit", None, [_POINTER, _POINTER]),
    ("ck_offer", _POINTER, [_POINTER, _POINTER]),
    ("ck_has_offer", ctypes.c_int32, [_POINTER]),
    ("ck_nanoseconds", ctypes.c_int64, [_POINTER]),
)
_Fields = list[tuple[str, Any]]


class Shape(ctypes.Structure):
    """`ck_shape`."""

    _fields_: ClassVar[_Fields] = [
        ("layers", ctypes.c_int32),
        ("hidden", ctypes.c_int32),
        ("heads", ctypes.c_int32),
        ("intermediate", ctypes.c_int32),
        ("pooling", ctypes.c_int32),
        ("precision", ctypes.c_int32),
        ("epsilon", ctypes.c_float),
    ]


class Linear(ctypes.Structure):
    """`ck_linear`."""

    _fields_: ClassVar[_Fields] = [
        ("weight", ctypes.c_void_p),
        ("scale", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("step", ctypes.c_float),
        ("zero", ctypes.c_int32),
    ]


class Norm(ctypes.Structure):
    """`ck_norm`."""

    _fields_: ClassVar[_Fields] = [
        ("gamma", ctypes.c_void_p),
        ("beta", ctypes.c_void_p),
        ("smoothing", ctypes.c_void_p),
    ]


class Layer(ctypes.Structure):
    """`ck_layer`."""

    _fields_: ClassVar[_Fields] = [
        ("linears", Linear * 6),
        ("attention_norm", Norm),
        ("output_norm", Norm),
    ]


class Model(ctypes.Structure):
    """`ck_model`. ctypes keeps no buffer alive that an address in it points to."""

    _fields_: ClassVar[_Fields] = [
        ("shape", Shape),
        ("isa", ctypes.c_int32),
        ("words", ctypes.c_void_p),
        ("word_scale", ctypes.c_void_p),
        ("positions", ctypes.c_void_p),
        ("embedding_norm", Norm),
        ("layers", ctypes.POINTER(Layer)),
        ("packed", ctypes.c_void_p),
        ("ticks", ctypes.c_void_p),
    ]


class Team(ctypes.Structure):
    """`ck_team`, one for each run; ctypes makes it of zeros."""

    _fields_: ClassVar[_Fields] = [
        ("ranks", ctypes.c_int64),
        ("done", ctypes.c_int64),
        ("next", ctypes.c_int64),
        ("returned", ctypes.c_int64),
    ]


class Work(ctypes.Structure):
    """`ck_work`, made of addresses. `nanoseconds` is read by its function, `after` only set."""

    _fields_: ClassVar[_Fields] = [
        ("model", ctypes.c_void_p),
        ("ids", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("texts", ctypes.c_int64),
        ("out", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("goes_on", ctypes.c_int64),
        ("team", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("nanoseconds", ctypes.c_int64),
        ("after", ctypes.c_void_p),
    ]


@cache
def functions(library: Path) -> Any:
    """The library at `library`, loaded once, its functions typed.

    Calls leave the interpreter's lock to others. Raises NativeEngineError.
    """
    if not library.is_file():
        raise NativeEngineError(f"there is no {library.name}, the kernels for this platform")
    try:
        loaded = ctypes.CDLL(str(library))
        abi = loaded.ck_abi()
        if abi != ABI:
            raise NativeEngineError(
                f"{library} has interface {abi}, and this program has {ABI}; compile it again"
            )
        size, pointer, i32, i64 = (
            ctypes.c_int64,
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_int64,
        )
        for name, result, arguments in (
            ("ck_supported", ctypes.c_uint32, []),
            ("ck_packed_bytes", size, [ctypes.POINTER(Shape), i32]),
            ("ck_pack", None, [ctypes.POINTER(Model), pointer]),
            ("ck_workspace_bytes", size, [ctypes.POINTER(Model), i64, i64, i64, i32]),
            ("ck_run", None, [pointer, pointer, pointer, i64, pointer, pointer, pointer, i32]),
            *(_QUEUE if HAS_QUEUE else ()),
        ):
            function = getattr(loaded, name)
            function.restype, function.argtypes = result, arguments
    except (OSError, AttributeError) as why:  # of another system, or without the function
        raise NativeEngineError(f"{library} cannot be loaded: {why}") from None
    return loaded


class Kernels:
    """The library in one instruction set. Any number of threads may call it at once."""

    def __init__(self, library: Any, isa: int) -> None:
        from cortex_embed.kernels import INSTRUCTION_SETS

        self.library = library
        """Its functions, typed: those that know no instruction set are called here."""
        self.isa = isa
        self.name = INSTRUCTION_SETS[isa]
        self.run = library.ck_run
        """ck_run(model, ids, offsets, texts, out, workspace, team, rank): addresses, numbers."""

    def packed_bytes(self, shape: Shape) -> int:
        """Bytes of the packed weights. Raises NativeEngineError for a shape it cannot run."""
        size = int(self.library.ck_packed_bytes(shape, self.isa))
        if not size:
            raise NativeEngineError("the kernels do not run a model of its shape")
        return size

    def pack(self, model: Model, packed: NDArray[np.uint8]) -> None:
        """Rearrange the weights of `model` into `packed`, aligned to 64 bytes."""
        self.library.ck_pack(model, packed.ctypes.data)

    def workspace_bytes(
        self, model: Model, *, tokens: int, texts: int, longest: int, ranks: int
    ) -> int:
        """Bytes that a run of that size needs. It reads nothing of `model` but shape and isa."""
        return int(self.library.ck_workspace_bytes(model, tokens, texts, longest, ranks))


def aligned(size: int) -> NDArray[np.uint8]:
    """`size` bytes that begin at a multiple of 64, not cleared."""
    import numpy as np

    buffer = np.empty(size + 64, dtype=np.uint8)
    start = -buffer.ctypes.data % 64
    return buffer[start : start + size]
