"""What a person sees on stderr while the server starts and stops, and the log's set-up.

stdout is never written here: it belongs to `embed`'s vectors and, for a sidecar, to
events. It must never print a text, a vector or a key.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortex_embed.domain import ModelSpec

LOGGER = "cortex_embed"


def configure(level: str) -> None:
    """Log this package's records of `level` and above to stderr, one line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")
    )
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


def described(why: BaseException) -> str:
    """Types and lines of an exception and of those that led to it, without their messages."""
    return " <- ".join(
        f"{type(one).__module__}.{type(one).__qualname__} at {_lines(one)}" for one in _chain(why)
    )


def _chain(why: BaseException) -> Iterator[BaseException]:
    one: BaseException | None = why
    while one is not None:
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _lines(why: BaseException) -> str:
    # Not traceback.format_exception: it reads source files, which blocks the event loop.
    frames = traceback.walk_tb(why.__traceback__)
    return ", ".join(f"{frame.f_code.co_filename}:{line}" for frame, line in frames)


def tick(stream: TextIO) -> str:
    """A check mark where the stream can show one (Windows consoles with old code pages cannot)."""
    try:
        "✓".encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return "OK:"
    return "✓"


class Reporter:
    """Start and stop as a person follows them. Implements `server.lifecycle.Reporter`."""

    def __init__(self, spec: ModelSpec, source: str, stream: TextIO | None = None) -> None:
        self._spec = spec
        self._source = source
        self._stream = stream or sys.stderr

    def _say(self, line: str) -> None:
        encoding = self._stream.encoding or "ascii"
        try:
            self._stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a closed stderr must never stop a server
            return

    def listening(self, url: str) -> None:
        self._say(f"Listening on {url}")

    def loading(self) -> None:
        self._say(f"Loading {self._spec.id} ({self._source}) …")

    def ready(self, seconds: float, url: str) -> None:
        spec = self._spec
        self._say(
            f"{tick(self._stream)} Model ready in {seconds:.2f} s: {spec.repo}, "
            f"{spec.dimensions} dimensions, {spec.max_tokens} tokens, on {url}"
        )
        body = json.dumps({"texts": ["hello world"]})
        self._say(f"Try:  curl -s {url}/embed -H 'Content-Type: application/json' -d '{body}'")

    def draining(self, in_flight: int) -> None:
        self._say(
            f"Stopping: finishing {in_flight} request(s); press Ctrl-C again to exit at once."
        )

    def stopped(self) -> None:
        self._say("Stopped.")
