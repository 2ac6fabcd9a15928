"""The life of a server, top to bottom: bind, announce, load, ready, serve, drain, stop.

The port answers before the model is loaded, so that a host can tell "starting" from
"dead". Nothing here may poll, and nothing may outlive `run`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from aiohttp.http import HttpProcessingError

from cortex_embed.logs import described
from cortex_embed.server.app import build_app
from cortex_embed.server.keys import TRAFFIC
from cortex_embed.server.middleware import REQUEST_ID
from cortex_embed.server.sockets import bind, url
from cortex_embed.stopping import leave, on_first_signal

if TYPE_CHECKING:
    import socket

    from cortex_embed.config import Settings
    from cortex_embed.service import EmbeddingService

# What is left of the requests when the model did not load: 503s being written.
_FAILED_GRACE = 1.0
# How long a refused client may go on sending before its connection is cut.
_LINGER = 3.0
_ACCESS_FORMAT = '%a "%r" %s %b %Tfs %{' + REQUEST_ID + "}o"


class Reporter(Protocol):
    """Who tells a person, or a host program, how far the server is."""

    def listening(self, url: str) -> None:
        """The port answers; the model is not loaded yet."""

    def loading(self) -> None: ...

    def ready(self, seconds: float, url: str) -> None:
        """Requests are served. `seconds` is how long the model took to load."""

    def draining(self, in_flight: int) -> None: ...

    def stopped(self) -> None: ...


class Server:
    """One run of the HTTP server. Use an instance once."""

    def __init__(self, settings: Settings, service: EmbeddingService, report: Reporter) -> None:
        self._settings = settings
        self._service = service
        self._report = report
        self._stopping = asyncio.Event()
        self._app = build_app(settings, service)
        self.url = ""
        """Where it listens; empty before `bind`."""

    async def run(self) -> int:
        """Serve until `stop` or a signal; the exit code.

        Raises BindError, and ModelFileError when the model does not load. A load that a
        stop overtakes ends the process here, with 0: see `leave`.
        """
        with on_first_signal(self.stop):
            sockets = await bind(self._settings.host, self._settings.port)
            self.url = url(sockets, self._settings.host)
            runner = await self._serve(sockets)
            try:
                self._report.listening(self.url)
                loaded = await self._load()
                await self._stopping.wait()
            except BaseException:
                await self._drain(runner, _FAILED_GRACE)
                await self._service.close()
                raise
            self._report.draining(self._app[TRAFFIC].in_flight)
            await self._drain(runner, self._settings.grace_period)
            if loaded:
                await self._service.close()
            self._report.stopped()
            if not loaded:
                leave(0)
        return 0

    def stop(self) -> None:
        """Ask the server to drain and return from `run`. Call it on the event loop."""
        self._stopping.set()

    async def _serve(self, sockets: list[socket.socket]) -> web.AppRunner:
        """Answer on `sockets` from now on."""
        runner = web.AppRunner(
            self._app,
            handler_cancellation=True,  # a client that leaves takes its work along
            shutdown_timeout=self._settings.grace_period,
            lingering_time=_LINGER,
            logger=_http_log,
            access_log=_access_log if self._settings.access_log else None,
            access_log_format=_ACCESS_FORMAT,
        )
        await runner.setup()
        for listener in sockets:
            await web.SockSite(runner, listener, backlog=4096).start()
        return runner

    async def _load(self) -> bool:
        """Load the model; False if a stop came first. Raises what the service raises."""
        self._report.loading()
        started = time.perf_counter()
        loop = asyncio.get_running_loop()
        load = loop.create_task(self._service.load())
        stop = loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait({load, stop}, return_when=asyncio.FIRST_COMPLETED)
            if not load.done():
                return False
            await load
        finally:
            stop.cancel()
            load.cancel()
            await asyncio.wait({load, stop}, timeout=1)
        self._report.ready(time.perf_counter() - started, self.url)
        return True

    async def _drain(self, runner: web.AppRunner, grace: float) -> None:
        """Finish what is in flight within `grace` seconds, then cut what is left."""
        # 1. Readiness goes; kept-alive connections are refused new work.
        self._service.drain()
        # 2. No new connections.
        for site in runner.sites:
            await site.stop()
        try:
            async with asyncio.timeout(grace):
                # 3. Handlers finish. Not yet `cleanup`: from its first step on, aiohttp
                #    drops bytes that arrive, and a body half sent would never be whole.
                await self._app[TRAFFIC].idle()
                # 4. Responses are written, idle connections are closed.
                await runner.cleanup()
        except TimeoutError:
            # 5. Someone does not send, does not read, or takes too long.
            for connection in list(runner.server.connections) if runner.server else []:
                if connection.transport is not None:
                    connection.transport.abort()
            await runner.cleanup()


class _NoBytes(logging.Filter):
    """aiohttp logs what it could not parse, bytes included: those may be texts or keys."""

    def filter(self, record: logging.LogRecord) -> bool:
        why = record.exc_info[1] if record.exc_info else None
        if isinstance(why, HttpProcessingError):  # the client's fault, and answered with 400
            return False
        if why is not None:
            record.msg = f"{record.getMessage()}: {described(why)}"
            record.args, record.exc_info, record.exc_text = (), None, None
        return True


_access_log = logging.getLogger("cortex_embed.access")
_http_log = logging.getLogger("cortex_embed.http")
_http_log.addFilter(_NoBytes())
