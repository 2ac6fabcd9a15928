"""`cortex-embed embed`: arguments, stdin or a file to vectors, in constant memory.

A few windows of texts are in flight at a time and written in order. It must never leave a
text out without saying so, nor write anything but vectors to stdout.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.commands import lines, sinks
from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import EmbedError, InputError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from cortex_embed.config import Settings
    from cortex_embed.domain import EmbedResult
    from cortex_embed.service import EmbeddingService

_WINDOW_TEXTS = 512
_WINDOW_CHARS = 400_000
_WINDOWS_IN_FLIGHT = 3
_NAMED_SKIPS = 5


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `embed` that are no settings."""

    texts: tuple[str, ...] = ()
    input: str | None = None
    output: Path | None = None
    format: str | None = None
    field: str = "text"
    input_type: Literal["query", "document"] | None = None
    dimensions: int | None = None
    skip_invalid: bool = False

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        return cls(
            texts=tuple(arguments.texts),
            input=arguments.input,
            output=Path(arguments.output) if arguments.output not in (None, "-") else None,
            format=arguments.format,
            field=arguments.field,
            input_type=arguments.input_type,
            dimensions=arguments.dimensions,
            skip_invalid=arguments.skip_invalid,
        )


@dataclass(slots=True)
class _Tally:
    """What the closing line on stderr tells."""

    texts: int = 0
    skipped: int = 0
    truncated: int = 0
    max_tokens: int = 0


def run(settings: Settings, options: Options) -> int:
    """Embed everything; the exit code. Raises EmbedError."""
    source = lines.source(options.texts, options.input, options.field, settings.max_text_chars)
    kind = sinks.output_format(options.output, options.format)
    from cortex_embed.commands import download
    from cortex_embed.composition import build_service

    service = build_service(settings, download.here(settings))
    width = service.resolve(None).dimensions
    if options.dimensions is not None and not 1 <= options.dimensions <= width:
        raise UsageError(f"--dimensions: {options.dimensions} must be from 1 to {width}.")
    sink = sinks.open_sink(options.output, kind, options.dimensions or width)
    tally = _Tally(max_tokens=service.resolve(None).max_tokens)
    try:
        asyncio.run(_pump(service, source, sink, options, tally))
    except EmbedError as error:
        error.message += sink.leftover()
        raise
    except KeyboardInterrupt:
        _say(f"Interrupted.{sink.leftover()}")
        return 130
    sink.finish()
    _report(tally)
    return 0


async def _pump(
    service: EmbeddingService,
    source: lines.Source,
    sink: sinks.Sink,
    options: Options,
    tally: _Tally,
) -> None:
    await service.load()
    loop = asyncio.get_running_loop()
    windows = _windows(source, options, tally)
    bar = _progress_bar(source)
    flying: deque[tuple[list[lines.Line], asyncio.Task[EmbedResult]]] = deque()
    failure: InputError | None = None
    try:
        while True:
            window: list[lines.Line] | None = None
            try:
                # Reading may block on a pipe, so it happens in a thread, as writing does.
                window = await loop.run_in_executor(None, next, windows, None)
            except InputError as why:
                failure = why  # raised below, after what came before it is written
            if window:
                flying.append((window, loop.create_task(service.embed(_request(window, options)))))
            while flying and (window is None or len(flying) >= _WINDOWS_IN_FLIGHT):
                written, task = flying.popleft()
                result = await task
                await loop.run_in_executor(None, sink.write, written, result)
                tally.texts += len(written)
                tally.truncated += len(result.truncations)
                bar.update(len(written))
            if window is None:
                break
        if failure:
            raise failure
    finally:
        bar.close()
        for _, task in flying:
            task.cancel()
        await asyncio.gather(*(task for _, task in flying), return_exceptions=True)
        await service.close()


def _windows(source: lines.Source, options: Options, tally: _Tally) -> Iterator[list[lines.Line]]:
    window: list[lines.Line] = []
    chars = 0
    for line in source.read():
        if isinstance(line, lines.Bad):
            if not options.skip_invalid:
                if window:
                    yield window  # what came before the bad line is not lost
                raise InputError(f"{line.reason} (--skip-invalid goes on without such lines.)")
            tally.skipped += 1
            if tally.skipped <= _NAMED_SKIPS:
                _say(f"Skipped: {line.reason}")
            continue
        window.append(line)
        chars += len(line.text)
        if len(window) >= _WINDOW_TEXTS or chars >= _WINDOW_CHARS:
            yield window
            window, chars = [], 0
    if window:
        yield window


def _request(window: list[lines.Line], options: Options) -> EmbedRequest:
    return EmbedRequest(
        texts=tuple(line.text for line in window),
        names=tuple(line.name for line in window),
        input_type=options.input_type,
        dimensions=options.dimensions,
        priority="bulk",
    )


def _progress_bar(source: lines.Source) -> Any:
    """A bar with rate and ETA on a terminal, nothing in a pipe."""
    from tqdm import tqdm

    shown = sys.stderr.isatty()
    return tqdm(
        total=source.count() if shown else None,
        unit=" texts",
        disable=not shown,
        file=sys.stderr,
        dynamic_ncols=True,
    )


def _report(tally: _Tally) -> None:
    if tally.truncated:
        _say(
            f"{tally.truncated} of {tally.texts} texts were truncated to {tally.max_tokens} "
            "tokens, the most this model reads (--on-overlong error refuses them)."
        )
    if tally.skipped:
        _say(f"{tally.skipped} lines were skipped; {tally.texts} texts were embedded.")


def _say(line: str) -> None:
    print(f"cortex-embed: {line}", file=sys.stderr)
