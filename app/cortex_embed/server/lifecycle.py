"""The life of a server, top to bottom: answer, load, ready, serve, drain, stop.

The port (bound and announced by `commands/serve`, before aiohttp is imported) answers before
the model is loaded, so that a host can tell "starting" from "dead". Nothing here may poll,
and nothing may outlive `run`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from aiohttp import web
from aiohttp.http import HttpProcessingError

from cortex_embed.logs import described
from cortex_embed.providers import memory
from cortex_embed.server.access_log import AccessLog
from cortex_embed.server.app import build_app
from cortex_embed.server.connection import Runner
from cortex_embed.server.cors import Cors
from cortex_embed.server.guard import Guard
from cortex_embed.server.keys import FAST, LOADED, TRAFFIC
from cortex_embed.stopping import leave, on_first_signal

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Collection, Sequence

    from cortex_embed.config import Settings
    from cortex_embed.server.reporter import Reporter, StopReason
    from cortex_embed.server.sockets import Listener
    from cortex_embed.service import EmbeddingService

# What is left of the requests when the model did not load: 503s being written.
_FAILED_GRACE = 1.0
# How long a refused client may go on sending before its connection is cut.
_LINGER = 3.0


class Server:
    """One run of the HTTP server. Use an instance once."""

    def __init__(
        self,
        settings: Settings,
        service: EmbeddingService,
        report: Reporter,
        listener: Listener,
        keys: Collection[str] = (),
    ) -> None:
        """Without `keys`, whatever API key a client sends is ignored."""
        self._settings = settings
        self._service = service
        self._report = report
        self._listener = listener
        self._stopping = asyncio.Event()
        self._reason: StopReason = "signal"
        self._grace = settings.grace_period
        self._patience: asyncio.Timeout | None = None
        guard = Guard.of(listener, keys, Cors(settings.cors_origins or ()))
        self._app = build_app(settings, service, guard)
        self.before_leaving: Callable[[], None] = lambda: None
        """Called where the process ends without the interpreter's own exit: see `_leave`."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._listener.url

    async def run(self) -> int:
        """Serve until `stop` or a signal; the exit code.

        Raises ModelFileError when the model does not load, OutputError when that cannot be
        reported. A load that a stop overtakes ends the process here, with 0: see `leave`.
        """
        with on_first_signal(self.stop):
            runner = await self._serve(self._listener.sockets)
            try:
                loaded = await self._load()
                await self._stopped()
            except BaseException:
                self._grace = _FAILED_GRACE
                await self._drain(runner)
                await self._service.close()
                raise
            self._report.draining(self._app[TRAFFIC].in_flight, self._reason)
            await self._drain(runner)
            ended = loaded and await self._service.close()
            self._report.stopped()
            if not ended:
                await asyncio.to_thread(self.before_leaving)
                leave(0)
        return 0

    def stop(self, reason: StopReason = "signal", grace: float | None = None) -> None:
        """Ask the server to drain and return from `run`. Call it on the event loop.

        A second call can only shorten the grace.
        """
        if not self._stopping.is_set():
            self._reason = reason
        self._stopping.set()
        if grace is not None and grace < self._grace:
            self._grace = grace
            if self._patience is not None:
                self._patience.reschedule(asyncio.get_running_loop().time() + grace)

    async def _stopped(self) -> None:
        """Wait for `stop`, or for --idle-exit."""
        seconds = self._settings.idle_exit
        if not seconds:
            await self._stopping.wait()
            return
        unused = asyncio.get_running_loop().create_task(self._stop_when_unused(seconds))
        try:
            await self._stopping.wait()
        finally:
            unused.cancel()
            await asyncio.wait({unused})

    async def _stop_when_unused(self, seconds: float) -> None:
        await self._app[TRAFFIC].unused_for(seconds)
        self.stop("idle")

    async def _serve(self, sockets: Sequence[socket.socket]) -> web.AppRunner:
        """Answer on `sockets` from now on."""
        runner = Runner(
            self._app,
            self._app[FAST],
            handler_cancellation=True,  # a client that leaves takes its work along
            shutdown_timeout=self._settings.grace_period,
            lingering_time=_LINGER,
            logger=_http_log,
            access_log=_access_log if self._settings.access_log else None,
            access_log_class=AccessLog,
        )
        await runner.setup()
        for listener in sockets:
            await web.SockSite(runner, listener, backlog=4096).start()
        return runner

    async def _load(self) -> bool:
        """Get and load the model; False if a stop came first. Raises what the service raises."""
        loop = asyncio.get_running_loop()
        load = loop.create_task(self._download_and_load())
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
        self._app[LOADED].set()
        await asyncio.to_thread(memory.share_arenas)
        model = self._service.models()[0]
        self._report.ready(model, time.perf_counter() - self._service.began)
        return True

    async def _download_and_load(self) -> None:
        await self._service.download()
        self._report.loading(self._service.models()[0])
        await self._service.load()

    async def _drain(self, runner: web.AppRunner) -> None:
        """Finish what is in flight within the grace, then cut what is left."""
        # 1. Readiness goes; kept-alive connections are refused new work, and so is what waits
        #    for the model.
        self._service.drain()
        self._app[LOADED].set()
        # 2. No new connections.
        for site in runner.sites:
            await site.stop()
        await asyncio.to_thread(self._listener.close)  # it may remove a file
        try:
            async with asyncio.timeout(self._grace) as self._patience:
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
        finally:
            self._patience = None


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
