"""One log line a request, for `--access-log`.

It must never say what was sent or answered: no text, no key, and nothing of a query string.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp.abc import AbstractAccessLogger

from cortex_embed.server.keys import DIALECT, REQUEST_ID, TRACE
from cortex_embed.server.routes import dialect_of

if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.web_request import BaseRequest

_PATH_SHOWN = 100


class AccessLog(AbstractAccessLogger):
    """The line's text is for people; its fields are for `--log-format json`."""

    def log(self, request: BaseRequest, response: web.StreamResponse, time: float) -> None:
        """`time` is in seconds, from the request's head to the response's end."""
        # As it was sent: aiohttp refuses a request line with anything but printable ASCII.
        path = request.raw_path.partition("?")[0][:_PATH_SHOWN]
        trace = request.get(TRACE)
        fields = {
            "request_id": request.get(REQUEST_ID),
            "trace_id": trace.trace_id if trace else None,
            "parent_id": trace.parent_id if trace else None,
            "remote": request.remote,
            "method": request.method,
            "path": path,
            "dialect": (request.get(DIALECT) or dialect_of(request.path)).NAME,
            "status": response.status,
            "seconds": round(time, 6),
            "bytes": response.body_length,
        }
        version = f"HTTP/{request.version.major}.{request.version.minor}"
        traced = f" trace {trace.trace_id}" if trace else ""
        self.logger.info(
            f'{request.remote or "-"} "{request.method} {path} {version}" {response.status} '
            f"{response.body_length} {time:.6f}s {fields['request_id'] or '-'}{traced}",
            extra={"fields": {name: value for name, value in fields.items() if value is not None}},
        )
