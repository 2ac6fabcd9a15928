"""What a person sees on stderr while the server starts and stops, and the log's set-up.

With `--log-format json` each line is an object: `time` (RFC 3339), `level`, `logger`,
`message`, and more by the kind of line. stdout is never written here: it belongs to `embed`'s
vectors and, for a sidecar, to events. It must never print a text, a vector or a key.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from cortex_embed.outlet import Outlet

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

    from cortex_embed.errors import EmbedError
    from cortex_embed.server.reporter import StopReason
    from cortex_embed.server.sockets import Listener
    from cortex_embed.service import ServedModel

LOGGER = "cortex_embed"


def configure(level: str, form: str = "text") -> None:
    """Log this package's records of `level` and above to stderr, one line each.

    With `form` "json", what other libraries say (warnings and worse) is JSON too.
    """
    import logging

    class Json(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return record_as_json(record)

    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(Json())
        logging.getLogger().handlers = [handler]
    else:
        layout = "%(asctime)s %(levelname)s %(message)s"
        handler.setFormatter(logging.Formatter(layout, datefmt="%Y-%m-%dT%H:%M:%S%z"))
    logger = logging.getLogger(LOGGER)
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())


def record_as_json(record: logging.LogRecord) -> str:
    """`record` as one line. `extra={"fields": {…}}` gives it more fields."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    if record.exc_info and record.exc_info[1] is not None:
        fields = fields | {"exception": described(record.exc_info[1])}
    return json_line(
        record.levelname.lower(), record.name, record.getMessage(), fields, record.created
    )


def json_line(
    level: str, logger: str, message: str, fields: dict[str, Any], at: float | None = None
) -> str:
    """One line of `--log-format json`, without its end. `at` is in Unix seconds; None is now."""
    whole, fraction = divmod(time.time() if at is None else at, 1)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return json.dumps(
        {
            "time": f"{stamp}.{int(fraction * 1000):03d}Z",
            "level": level,
            "logger": logger,
            "message": message,
            **fields,
        }
    )


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
    import traceback

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


_WHY: dict[StopReason, str] = {
    "signal": "",
    "parent": "the program that started this one is gone: ",
    "stdin": "stdin has ended: ",
    "idle": "nothing was asked for (--idle-exit): ",
    "request": "",
}


class Reporter:
    """Start and stop as a person follows them, or (`form` "json") a log collector.

    Implements `server.reporter.Reporter`.
    """

    def __init__(self, stream: TextIO | None = None, *, form: str = "text") -> None:
        self._stream = stream or sys.stderr
        self._form = form
        self._url = ""
        self._socket = ""
        self._key = ""

    def _say(self, line: str, event: str, *, level: str = "info", **fields: Any) -> None:
        if self._form == "json":
            line = json_line(level, f"{LOGGER}.start", line, {"event": event, **fields})
        encoding = self._stream.encoding or "ascii"
        try:
            self._stream.write(line.encode(encoding, "replace").decode(encoding) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a closed stderr must never stop a server
            return

    def listening(self, listener: Listener, token: str | None, *, keyed: bool = False) -> None:
        # A key itself is never shown.
        self._key = " -H 'Authorization: Bearer TOKEN'" if token or keyed else ""
        self._url = listener.url
        self._socket = f" --unix-socket {listener.uds}" if listener.uds else ""
        self._say(f"Listening on {listener.uds or listener.url}", "listening", url=listener.url)

    def loading(self, model: ServedModel) -> None:
        self._say(f"Loading {model.spec.id} ({model.origin}) …", "loading", model=model.spec.id)

    def ready(self, model: ServedModel, seconds: float) -> None:
        spec = model.spec
        mark = "" if self._form == "json" else f"{tick(self._stream)} "
        self._say(
            f"{mark}Model ready in {seconds:.2f} s: {spec.repo}, "
            f"{spec.dimensions} dimensions, {spec.max_tokens} tokens, on {self._url}",
            "ready",
            model=spec.id,
            dimensions=spec.dimensions,
            max_tokens=spec.max_tokens,
            fingerprint=model.fingerprint,
            seconds=round(seconds, 3),
            url=self._url,
        )
        if self._form == "json":
            return
        body = json.dumps({"texts": ["hello world"]})
        self._say(
            f"Try:  curl -s{self._socket} {self._url}/embed "
            f"-H 'Content-Type: application/json'{self._key} -d '{body}'",
            "try",
        )

    def draining(self, in_flight: int, reason: StopReason) -> None:
        self._say(
            f"Stopping: {_WHY[reason]}finishing {in_flight} request(s); "
            "press Ctrl-C again to exit at once.",
            "draining",
            in_flight=in_flight,
            reason=reason,
        )

    def stopped(self) -> None:
        self._say("Stopped.", "stopped")
        self._settle()

    def failed(self, error: EmbedError) -> None:
        self._say(
            f"cortex-embed: error: {error.message}",
            "error",
            level="error",
            code=error.code,
            exit_code=error.exit_code,
        )
        self._settle()

    def _settle(self) -> None:
        """The process may end without further ado: let the last words out."""
        if isinstance(self._stream, Outlet):
            self._stream.settle(0.5)
