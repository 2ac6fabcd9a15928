"""Input of `embed`, line by line: where texts come from and what is wrong with each.

Reads one line at a time, so a million lines cost the memory of a few. It must never hold
a file in memory, and never change a text beyond its line end.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from cortex_embed.errors import InputError, UsageError
from cortex_embed.service import fault

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Line:
    """`number` counts from 1; `id` is the caller's own (any JSON), where one was given."""

    number: int
    name: str
    text: str
    id: Any = None


@dataclass(frozen=True, slots=True)
class Bad:
    """A line that cannot be embedded; `reason` is a whole sentence that names it."""

    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """Arguments, stdin, or a file. `total` is the number of texts where it is known."""

    arguments: Sequence[str]
    file: Path | None
    jsonl: bool
    field: str
    max_chars: int

    def read(self) -> Iterator[Line | Bad]:
        """Every line in order. Raises InputError when the source cannot be read."""
        if self.arguments:
            for number, text in enumerate(self.arguments, 1):
                yield _checked(number, f"argument {number}", text, None, self.max_chars)
            return
        if self.file is None:
            yield from self._lines(sys.stdin.buffer)
            return
        try:
            with self.file.open("rb") as stream:
                yield from self._lines(stream)
        except OSError as why:
            raise InputError(f"--input: cannot read {self.file}: {why.strerror}.") from None

    def count(self) -> int | None:
        """Lines of a regular file, or None where only reading would tell."""
        if self.arguments:
            return len(self.arguments)
        if self.file is None or not self.file.is_file():
            return None
        lines = 0
        last = b"\n"
        with self.file.open("rb") as stream:
            while block := stream.read(1 << 20):
                lines += block.count(b"\n")
                last = block[-1:]
        return lines + (last != b"\n")

    def _lines(self, stream: IO[bytes]) -> Iterator[Line | Bad]:
        # JSON may escape each character as six bytes, UTF-8 needs up to four.
        limit = 6 * self.max_chars + 4096
        number = 0
        while raw := stream.readline(limit + 1):
            number += 1
            if number == 1:
                raw = raw.removeprefix(_BOM)
            if len(raw) > limit:
                raise InputError(
                    f"line {number} is longer than {limit} bytes; the limit is "
                    f"{self.max_chars} characters a text (--max-text-chars)."
                )
            yield self._line(number, raw.removesuffix(b"\n").removesuffix(b"\r"))

    def _line(self, number: int, raw: bytes) -> Line | Bad:
        name = f"line {number}"
        try:
            content = raw.decode("utf-8")
        except UnicodeDecodeError as why:
            return Bad(f"{name} is not UTF-8: byte 0x{raw[why.start]:02X} at {why.start}.")
        if not self.jsonl:
            return _checked(number, name, content, None, self.max_chars)
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as why:
            return Bad(f"{name} is not JSON: {why}.")
        if isinstance(value, str):
            return _checked(number, name, value, None, self.max_chars)
        if not isinstance(value, dict) or not isinstance(value.get(self.field), str):
            return Bad(
                f'{name} must be a JSON string, or an object with a string "{self.field}" '
                "(--field names another key)."
            )
        return _checked(number, name, value[self.field], value.get("id"), self.max_chars)


def _checked(number: int, name: str, text: str, own_id: Any, max_chars: int) -> Line | Bad:
    why = fault(text, max_chars)
    return Bad(f"{name} {why}") if why else Line(number, name, text, own_id)


def source(texts: Sequence[str], input_path: str | None, field: str, max_chars: int) -> Source:
    """Where the texts come from. Raises UsageError when that is nothing, or two places."""
    if texts and input_path:
        raise UsageError("Texts were given both as arguments and by --input; choose one.")
    if not texts and input_path is None and sys.stdin.isatty():
        raise UsageError("No texts: pass them as arguments, pipe lines in, or use --input FILE.")
    file = None if input_path in (None, "-") else Path(str(input_path))
    jsonl = file is not None and file.suffix.lower() in {".jsonl", ".ndjson"}
    return Source(texts, file, jsonl, field, max_chars)
