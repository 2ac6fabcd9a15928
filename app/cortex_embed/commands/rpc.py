"""`cortex-embed rpc`: the service as JSON lines over stdin and stdout, without a port.

A thread reads, the event loop embeds, a thread writes; `wire.rpc` has the format. Nothing
but lines of that format may ever reach stdout, and no host, whether it reads or not, may
make this process grow without bound.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import orjson

from cortex_embed import __version__, logs, stopping
from cortex_embed.commands import pipes
from cortex_embed.errors import EmbedError, InvalidRequestError, NotReadyError
from cortex_embed.wire import native, rpc

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortex_embed.config import Settings
    from cortex_embed.service import EmbeddingService
    from cortex_embed.wire.dialect import Asked

    Line = Callable[[], bytes]
    """A line that the writing thread encodes: so the JSON of one answer exists at a time."""

_REQUESTS = 256
"""Requests in flight, from their line to the last byte of their answer."""
_BODIES = 4
"""So many --max-body-bytes of lines and vectors may be in flight, together."""
_VECTOR_BYTES = 4096
"""What a text counts for its vector: 1,024 dimensions, known before the model is."""
_FAILED = "The request failed; stderr has more."

log = logging.getLogger(__name__)


def run(settings: Callable[[], Settings]) -> int:
    """Answer until stdin ends or a signal comes; the exit code. Raises EmbedError.

    The host is told of whatever goes wrong at the start, a wrong setting included: hence a
    function.
    """
    output = pipes.Output(pipes.own_stdout())
    try:
        given = settings()
        logs.configure(given.log_level, given.log_format)
        return asyncio.run(Host(given, partial(_build, given), output).run(pipes.stdin()))
    except Exception as why:
        unexpected = EmbedError(f"The start failed: {type(why).__name__}; stderr has more.")
        output.put(rpc.encode_failed_start(why if isinstance(why, EmbedError) else unexpected))
        raise


def _build(settings: Settings) -> EmbeddingService:
    from cortex_embed.commands import download
    from cortex_embed.composition import build_service

    return build_service(settings, download.here(settings))


class Host:
    """One run, for one host program. Create it anywhere, `run` it once."""

    def __init__(
        self, settings: Settings, build: Callable[[], EmbeddingService], output: pipes.Output
    ) -> None:
        self._settings = settings
        self._build = build
        self._output = output
        self._budget = pipes.Budget(_REQUESTS, _BODIES * settings.max_body_bytes)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="stdout")
        self._service: EmbeddingService | None = None
        self._loaded = asyncio.Event()
        self._ended = asyncio.Event()
        self._draining = False
        self._unread = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_flight: set[rpc.Id] = set()
        self._embedding: dict[rpc.Id, asyncio.Task[None]] = {}
        self._cancelled: set[rpc.Id] = set()

    async def run(self, stdin: int | None) -> int:
        """Load, answer, and at the end of stdin or on a signal finish what is in flight."""
        loop = asyncio.get_running_loop()
        with stopping.on_first_signal(partial(self._signalled, loop)):
            # Both before the model loads: a host may die at any time.
            self._output.watch(partial(_post, loop, self._nobody_reads))
            threading.Thread(target=self._read, args=(stdin, loop), daemon=True).start()
            service = await self._load()
            await self._ended.wait()
            while self._tasks:
                await asyncio.wait(self._tasks)
            await service.close()
            await loop.run_in_executor(None, self._writer.shutdown)
        log.info("Stopped.")
        return 0

    async def _load(self) -> EmbeddingService:
        started = time.perf_counter()
        service = await asyncio.to_thread(self._build)
        model = service.models()[0]
        log.info("Loading %s (%s)", model.spec.id, model.origin)
        await service.load()
        ready = rpc.encode_event(
            "ready",
            pid=os.getpid(),
            model=model.spec.id,
            dimensions=model.spec.dimensions,
            max_tokens=model.spec.max_tokens,
            precision=model.facts.get("precision"),
            version=__version__,
        )
        # The writer is one thread, so no answer can come before this line.
        self._writer.submit(self._output.put, ready)
        self._service = service
        self._loaded.set()
        log.info("Model ready in %.2f s, on stdin and stdout", time.perf_counter() - started)
        return service

    def _read(self, stdin: int | None, loop: asyncio.AbstractEventLoop) -> None:
        """The reading thread: it makes calls of lines, and waits while too much is in flight."""
        splitter = rpc.Splitter(self._settings.max_body_bytes)
        try:
            for chunk in pipes.chunks(stdin):
                for line in splitter.feed(chunk):
                    self._hand_over(line, loop)
            for line in splitter.finish():
                self._hand_over(line, loop)
        finally:
            _post(loop, self._ended.set)

    def _hand_over(self, line: bytes | rpc.Refusal, loop: asyncio.AbstractEventLoop) -> None:
        call, cost = (line, 0) if isinstance(line, rpc.Refusal) else (_decoded(line), len(line))
        if isinstance(call, rpc.Call) and call.asked is not None:
            cost += len(call.asked.request.texts) * _VECTOR_BYTES
        self._budget.take(cost)
        _post(loop, partial(self._arrived, call, cost))

    def _arrived(self, call: rpc.Call | rpc.Refusal, cost: int) -> None:
        if self._unread:
            self._output.lost()
        task = asyncio.get_running_loop().create_task(self._serve(call, cost))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, call: rpc.Call | rpc.Refusal, cost: int) -> None:
        """From a line to the last byte of its answer."""
        line: Line
        if isinstance(call, rpc.Refusal):
            await self._loaded.wait()
            line = partial(rpc.encode_error, call.id, call.error)
        else:
            line = await self._line(call)
        await asyncio.get_running_loop().run_in_executor(self._writer, self._write, call.id, line)
        self._budget.give(cost)

    def _write(self, own_id: rpc.Id | None, line: Line) -> None:
        """The writing thread."""
        try:
            encoded = line()
        except Exception as why:  # the host must not wait for ever
            log.error("an answer could not be written: %s", logs.described(why))
            encoded = rpc.encode_error(own_id, EmbedError(_FAILED))
        self._output.put(encoded)

    async def _line(self, call: rpc.Call) -> Line:
        """The answer to `call`, an error where it fails."""
        if call.id in self._in_flight:
            twice = InvalidRequestError(
                f"id {call.id!r} is in flight; give every request an id of its own.",
                param="id",
                code="duplicate_id",
            )
            await self._loaded.wait()
            return partial(rpc.encode_error, call.id, twice)
        self._in_flight.add(call.id)
        try:
            await self._loaded.wait()
            return await self._answer(call)
        except asyncio.CancelledError:
            if call.id not in self._cancelled:
                raise
            why: EmbedError = InvalidRequestError("The host cancelled it.", code="cancelled")
        except EmbedError as error:
            why = error
            if error.status >= 500 and not error.retryable:
                log.error("a request failed: %s", logs.described(error))
        except Exception as error:
            log.error("a request failed: %s", logs.described(error))
            why = EmbedError(_FAILED)
        finally:
            # Before the answer is written: the host may use the id again once it has read it.
            self._in_flight.discard(call.id)
            self._cancelled.discard(call.id)
        return partial(rpc.encode_error, call.id, why)

    async def _answer(self, call: rpc.Call) -> Line:
        """Raises EmbedError."""
        service = self._service
        assert service is not None  # noqa: S101 - it is loaded; this is for mypy
        if call.asked is not None:
            return await self._embed(service, call, call.asked)
        if call.target is not None:
            answer: object = {"cancelled": self._cancel(call.target)}
        elif call.method == "info":
            answer = service.models()[0].facts
        else:
            answer = {"status": "ok"}
        return partial(rpc.encode_result, call.id, orjson.dumps(answer))

    async def _embed(self, service: EmbeddingService, call: rpc.Call, asked: Asked) -> Line:
        if self._draining:
            raise NotReadyError("rpc is stopping; start another one.", phase="draining")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for mypy: this is a coroutine
        self._embedding[call.id] = task
        try:
            result = await service.embed(asked.request)
        finally:
            del self._embedding[call.id]

        def line() -> bytes:
            return rpc.encode_result(call.id, native.encode_response(asked, result))

        return line

    def _cancel(self, target: rpc.Id) -> bool:
        """Whether `target` was being embedded; it is answered with an error then."""
        task = self._embedding.get(target)
        if task is not None and target not in self._cancelled:
            self._cancelled.add(target)
            task.cancel()
        return task is not None

    def _signalled(self, loop: asyncio.AbstractEventLoop) -> None:
        """Stop in order, as at the end of stdin; but a host that does not read cannot hold us."""
        log.info("Stopping: finishing %d request(s).", len(self._tasks))
        self._draining = True
        self._ended.set()
        if not self._loaded.is_set() and not self._tasks:
            stopping.leave(0)
        loop.call_later(self._settings.grace_period, stopping.leave, 0)

    def _nobody_reads(self) -> None:
        """stdout is closed. A host that wants nothing more has only stopped listening early."""
        self._unread = True
        if self._tasks or not self._loaded.is_set():
            self._output.lost()


def _decoded(line: bytes) -> rpc.Call | rpc.Refusal:
    try:
        return rpc.decode_line(line)
    except Exception as why:  # without its reading thread the process would answer nothing more
        log.error("a line could not be read: %s", logs.described(why))
        return rpc.Refusal(None, EmbedError(_FAILED))


def _post(loop: asyncio.AbstractEventLoop, callback: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits for news any more
        loop.call_soon_threadsafe(callback)
