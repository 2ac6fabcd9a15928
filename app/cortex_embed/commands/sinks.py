"""Output of `embed`: JSON lines or a .npy array, written as it comes.

A file appears under its name only when it is complete; until then it is NAME.part, which a
failure leaves behind and names. It must never hold more than the rows it was just given.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Protocol

from cortex_embed.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cortex_embed.commands.lines import Line
    from cortex_embed.domain import EmbedResult


class Sink(Protocol):
    """Takes results in order."""

    def write(self, lines: Sequence[Line], result: EmbedResult) -> None: ...

    def finish(self) -> None: ...

    def leftover(self) -> str: ...


@dataclass(slots=True)
class _File:
    """NAME.part until `publish`; or a stream that is not ours to rename."""

    target: Path | None
    stream: IO[bytes] = field(init=False)
    rows: int = 0

    def __post_init__(self) -> None:
        if self.target is None:
            self.stream = sys.stdout.buffer
            return
        try:
            self.stream = self.part.open("wb")
        except OSError as why:
            raise OutputError(f"--output: cannot write {self.part}: {why.strerror}.") from None

    @property
    def part(self) -> Path:
        assert self.target is not None  # noqa: S101 - only asked of a named file
        return self.target.with_name(self.target.name + ".part")

    def write(self, data: bytes) -> None:
        try:
            self.stream.write(data)
            if self.target is None:
                self.stream.flush()
        except BrokenPipeError:
            raise
        except OSError as why:
            raise OutputError(f"--output: cannot write: {why.strerror}.{self.leftover()}") from None

    def publish(self) -> None:
        if self.target is None:
            return
        try:
            self.stream.close()
            self.part.replace(self.target)
        except OSError as why:
            raise OutputError(f"--output: cannot write {self.target}: {why.strerror}.") from None

    def leftover(self) -> str:
        if self.target is None or not self.rows:
            return ""
        return f" The first {self.rows} vectors are in {self.part}."


class JsonLines:
    """One object a text: index, id (where given), embedding, tokens cut (where any)."""

    def __init__(self, target: Path | None) -> None:
        self._file = _File(target)

    def write(self, lines: Sequence[Line], result: EmbedResult) -> None:
        """Write one line for each row of `result.vectors`, float32 [n, d]."""
        import orjson

        cut = {t.index: {"tokens": t.tokens, "used": t.used} for t in result.truncations}
        rows = []
        for index, (line, vector) in enumerate(zip(lines, result.vectors, strict=True)):
            row: dict[str, Any] = {"index": line.number - 1}
            if line.id is not None:
                row["id"] = line.id
            row["embedding"] = vector
            if index in cut:
                row["truncated"] = cut[index]
            rows.append(orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n")
        self._file.write(b"".join(rows))
        self._file.rows += len(rows)

    def finish(self) -> None:
        self._file.publish()

    def leftover(self) -> str:
        self._file.stream.flush()
        return self._file.leftover()


class Npy:
    """A float32 [n, d] array in NumPy's format 1.0, its header rewritten when n is known.

    NumPy pads the header so that a growing first axis leaves its length unchanged
    (numpy.lib.format, "GROWTH_AXIS_MAX_DIGITS").
    """

    def __init__(self, target: Path, dimensions: int) -> None:
        self._file = _File(target)
        self._dimensions = dimensions
        self._header()

    def _header(self) -> None:
        import numpy as np

        shape = (self._file.rows, self._dimensions)
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._file.stream, header)

    def write(self, lines: Sequence[Line], result: EmbedResult) -> None:
        """Append the rows of `result.vectors`, float32 [n, d]."""
        self._file.write(result.vectors.astype("<f4", copy=False).tobytes())
        self._file.rows += len(lines)

    def finish(self) -> None:
        self._file.stream.seek(0)
        self._header()
        self._file.publish()

    def leftover(self) -> str:
        self._file.stream.flush()
        end = self._file.stream.tell()
        self._file.stream.seek(0)
        self._header()
        self._file.stream.seek(end)
        self._file.stream.flush()
        return self._file.leftover()


def output_format(target: Path | None, asked: str | None) -> str:
    """`jsonl` or `npy`. Raises UsageError where the two cannot be told or cannot work."""
    suffixes = {".npy": "npy", ".jsonl": "jsonl", ".ndjson": "jsonl"}
    kind = asked or (suffixes.get(target.suffix.lower()) if target else "jsonl")
    if kind is None:
        raise UsageError(f"--output: {target} is neither .jsonl nor .npy; say --format.")
    if kind == "npy" and target is None:
        raise UsageError("--format npy needs --output FILE: the array's length comes first in it.")
    return kind


def open_sink(target: Path | None, kind: str, dimensions: int) -> Sink:
    """Raises OutputError."""
    if kind == "npy":
        assert target is not None  # noqa: S101 - output_format() has refused this
        return Npy(target, dimensions)
    return JsonLines(target)
