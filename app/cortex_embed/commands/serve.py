"""`cortex-embed serve`: watch, bind, announce, and only then import what costs.

The order is the point: a host learns the port, and a host that dies is noticed, before aiohttp,
numpy and the runtime are loaded. Nothing expensive may be imported at the top of this module.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

from cortex_embed.errors import EmbedError, NotInstalledError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from cortex_embed.config import Settings
    from cortex_embed.server.lifecycle import Server
    from cortex_embed.server.reporter import Reporter, StopReason
    from cortex_embed.server.sockets import Listener
    from cortex_embed.watch import Watch

_PLATFORM: str = sys.platform  # a plain string: mypy would judge by its own platform
# Nobody is left to wait for: what is in flight gets a moment. The watch allows little more.
_ORPHAN_GRACE = 1.0
# Seconds a thread keeps the interpreter's lock while others want it: the usual, and at a start.
_TURN = 0.005
_START_TURN = 0.0005
# So many more objects than before make the collector look at the young ones.
GARBAGE = 10_000


def run(settings: Settings) -> int:
    """Serve until something stops it; the exit code. Every failure has been reported."""
    import gc

    from cortex_embed.outlet import unblocked_stderr

    # What a start allocates, it keeps: looking for garbage in it is a tenth of the imports' time.
    gc.disable()
    # The threads that hash, and read tokenizer and graph, get their turn between two imports.
    sys.setswitchinterval(_START_TURN)
    with _Early() as early, unblocked_stderr():
        from cortex_embed import logs

        report: Reporter = logs.Reporter(form=settings.log_format)
        watch: Watch | None = None
        try:
            watch = _watch(settings)
            report = _reporter(settings, report)
            return _serve(settings, report, watch, early)
        except EmbedError as error:
            report.failed(error)
            return error.exit_code
        except Exception as why:
            if watch is not None and watch.ends_at_once:
                # Its thread closes and removes what we stand on: that we stumble is no failure.
                watch.clean()
                os._exit(0)
            _say_where(why, settings)
            report.failed(EmbedError(f"unexpected failure: {type(why).__name__}; see stderr"))
            return EmbedError.exit_code


def _serve(settings: Settings, report: Reporter, watch: Watch, early: _Early) -> int:
    """Bind, announce, start to load, import the server, run it."""
    import gc

    from cortex_embed import config
    from cortex_embed.composition import build_downloading, build_service, locate_models

    token = config.token(settings.token_env) if settings.token_env else None
    if token is None and settings.sidecar:
        token = os.urandom(32).hex()
    keys = config.keys(settings)
    try:
        located = locate_models(settings)
        build = partial(build_service, settings, located)
    except NotInstalledError:
        from cortex_embed.commands import download

        specs = download.planned(settings)
        fetch = partial(download.all_here, settings, report)
        build = partial(build_downloading, settings, specs, fetch)
    with listening(settings) as listener:
        early.listener = listener
        watch.at_exit(listener.close)
        report.listening(listener, token, keyed=bool(keys))

        service = build()
        service.begin()

        from cortex_embed import logs
        from cortex_embed.server import lean

        lean.prepare()
        import asyncio

        from cortex_embed.server.lifecycle import Server

        logs.configure(settings.log_level, settings.log_format)
        keys = keys if token is None else (token, *keys)
        _warn(settings, listener, keyed=bool(keys))

        async def main() -> int:
            gc.freeze()
            # The default is 700, which many requests at once pass all the time: with 64 of them,
            # looking is a tenth of what they cost the event loop.
            gc.set_threshold(GARBAGE)
            gc.enable()
            sys.setswitchinterval(_TURN)
            server = Server(settings, service, report, listener, keys)
            server.before_leaving = watch.clean
            _stop_when_orphaned(watch, server)
            return await server.run()

        return asyncio.run(main())


def _warn(settings: Settings, listener: Listener, *, keyed: bool) -> None:
    """Say what the person may not have meant. Where `log_level` lets it."""
    import logging

    from cortex_embed.commands import exposure

    for line in exposure.warnings(settings, listener, keyed=keyed):
        logging.getLogger(__name__).warning(line)


def _say_where(why: Exception, settings: Settings) -> None:
    """What whoever repairs it needs of an unexpected failure."""
    if settings.log_format == "json":
        import logging

        from cortex_embed import logs

        logs.configure(settings.log_level, settings.log_format)
        logging.getLogger(__name__).critical("unexpected failure", exc_info=why)
        return
    import traceback

    traceback.print_exc()


@contextmanager
def listening(settings: Settings) -> Iterator[Listener]:
    """The socket that was asked for. Raises BindError."""
    if settings.uds is not None:
        from cortex_embed.server.unix_sockets import bind_unix

        listener = bind_unix(settings.uds)
    else:
        from cortex_embed.server.sockets import bind

        listener = bind(settings.host, settings.port)
    try:
        yield listener
    finally:
        listener.close()


class _Early:
    """Until the server takes signals over, one ends the process at once, and in order.

    There is nothing to finish yet. The handlers of before come back at the end.
    """

    def __init__(self) -> None:
        self.listener: Listener | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> _Early:
        if threading.current_thread() is threading.main_thread():
            for name in ("SIGINT", "SIGTERM", "SIGBREAK"):
                if number := getattr(signal, name, None):
                    self._previous[number] = signal.signal(number, self._leave)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            if handler is not None:  # None: set by C code, not ours to restore
                signal.signal(number, handler)

    def _leave(self, _number: int, _frame: FrameType | None) -> None:
        if self.listener is not None:
            self.listener.close()
        os._exit(0)


def _watch(settings: Settings) -> Watch:
    """What ends us when nobody needs us any more, armed with what was asked for."""
    from cortex_embed.watch import Watch, host_pid

    watch = Watch()
    stdin = settings.exit_on_stdin_close
    if settings.sidecar if stdin is None else stdin:
        watch.watch_stdin()
    parent = settings.parent_pid or (host_pid() if settings.sidecar else 0)
    if parent:
        watch.watch_process(parent, "parent")
    watch.start()
    return watch


def _stop_when_orphaned(watch: Watch, server: Server) -> None:
    """Drain when the watch says so. Call it on the event loop."""
    import asyncio

    from cortex_embed.server.reporter import STOP_REASONS

    loop = asyncio.get_running_loop()

    def orphaned(why: str) -> None:
        reason: StopReason = next((one for one in STOP_REASONS if one == why), "parent")
        with suppress(RuntimeError):  # the loop is closed: it is ending anyway
            loop.call_soon_threadsafe(partial(server.stop, reason, grace=_ORPHAN_GRACE))

    watch.on_orphaned(orphaned)


def _reporter(settings: Settings, person: Reporter) -> Reporter:
    """Who is told what: always the person, and who started us where they asked to be told."""
    from cortex_embed import config
    from cortex_embed.outlet import Outlet

    # A sidecar has its host's NOTIFY_SOCKET, whose manager waits for the host, not for us.
    address = "" if settings.sidecar or _PLATFORM == "win32" else config.notify_socket()
    if address:
        from cortex_embed.server.notify import ManagerReporter
        from cortex_embed.server.reporter import Together

        person = Together(person, ManagerReporter(address, person.said))
    outlets = []
    if settings.sidecar and sys.stdout is not None:
        outlets.append(Outlet(_claimed_stdout()))
    if settings.ready_fd:
        outlets.append(Outlet(_inherited(settings.ready_fd)))
    if not outlets and settings.ready_file is None:
        return person
    from cortex_embed.server.events import HostReporter, ReadyFile
    from cortex_embed.server.reporter import Together

    host = HostReporter(outlets)
    if settings.ready_file is not None:
        try:
            host.ready_file = ReadyFile(settings.ready_file)
        except EmbedError as error:
            host.failed(error)
            raise
    return Together(person, host)


def _claimed_stdout() -> int:
    """A descriptor of its own for what stdout leads to; stdout itself leads to stderr now.

    So nothing that any library prints can get between the events.
    """
    sys.stdout.flush()
    events = os.dup(1)
    if sys.stderr is not None:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
    return events


def _inherited(number: int) -> int:
    if _PLATFORM == "win32":
        raise UsageError(f"--ready-fd {number}: not on Windows; use --ready-file or --sidecar.")
    try:
        os.fstat(number)
    except OSError:
        raise UsageError(
            f"--ready-fd {number} is not open; let the process inherit it (Python's pass_fds, "
            "Node's stdio), or use --ready-file."
        ) from None
    os.set_inheritable(number, False)
    return number
