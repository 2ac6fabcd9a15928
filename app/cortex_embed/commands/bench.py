"""`cortex-embed bench`: a user's own numbers in one command, ours or any server's.

In this process by default, or against a URL that speaks OpenAI's embeddings API, so that two
servers can be compared by running it twice. It must never send a text anywhere but to the URL
it was given, nor print a figure that it did not measure.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cortex_embed.commands.bench_load import ServiceTarget
    from cortex_embed.commands.bench_loop import HttpTarget
    from cortex_embed.commands.bench_window import Load, Sample
    from cortex_embed.config import Settings

_MOST_CLIENTS = 4096
_MOST_BATCH = 2048


@dataclass(frozen=True, slots=True)
class Options:
    """The flags of `bench` that are no settings."""

    texts: str = "short"
    concurrency: tuple[int, ...] = (1, 8, 64)
    batch: int = 1
    duration: float = 5.0
    url: str | None = None
    model: str | None = None
    encoding: str = "float"
    headers: tuple[str, ...] = ()
    plot: Path | None = None
    json: Path | None = None

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        """Raises UsageError naming the flag, the value and what is allowed."""
        return cls(
            texts=arguments.texts,
            concurrency=_whole_numbers("--concurrency", arguments.concurrency, _MOST_CLIENTS),
            batch=_whole_numbers("--batch", arguments.batch, _MOST_BATCH)[0],
            duration=_seconds(arguments.duration),
            url=arguments.url,
            model=arguments.bench_model,
            encoding=arguments.encoding,
            headers=tuple(_header(line) for line in arguments.header),
            plot=arguments.plot,
            json=arguments.json,
        )


def _whole_numbers(flag: str, raw: str, most: int) -> tuple[int, ...]:
    try:
        values = tuple(int(part) for part in raw.split(","))
    except ValueError:
        values = ()
    if not values or not all(1 <= value <= most for value in values):
        raise UsageError(f"{flag}: {raw!r} must be whole numbers from 1 to {most}.")
    if flag == "--batch" and len(values) > 1:
        raise UsageError(f"{flag}: {raw!r} must be one whole number.")
    return values


def _seconds(raw: str) -> float:
    from cortex_embed.parsers import duration

    try:
        value = duration(raw)
    except ValueError as why:
        raise UsageError(f"--duration: {raw!r} {why}.") from None
    if not 0.1 <= value <= 3600:
        raise UsageError(f"--duration: {raw!r} must be from 100ms to 1h.")
    return value


def _header(line: str) -> str:
    name, colon, value = line.partition(":")
    if not colon or not name.strip() or not line.isprintable() or not line.isascii():
        raise UsageError("--header: a header must be like 'Name: value', in ASCII.")
    return f"{name.strip()}: {value.strip()}"


def run(settings: Settings, options: Options) -> int:
    """Measure, print the table, write what was asked for; the exit code. Raises EmbedError."""
    from cortex_embed.commands import bench_report, bench_texts

    if options.plot is not None:
        bench_report.plot_kind(options.plot)
    if options.url is None and (options.model or options.headers or options.encoding != "float"):
        raise UsageError("--bench-model, --header and --encoding go with --url.")
    texts = bench_texts.texts_for(options.texts, max_chars=settings.max_text_chars)
    batches = bench_texts.batches(texts, options.batch)
    target = _target(settings, options)
    samples = _measure(target, batches, options)
    found = bench_report.document(_facts(target, options, len(texts)), samples)
    machine = found["machine"]
    if options.json is not None:
        bench_report.write_json(options.json, found)
    if options.plot is not None:
        bench_report.write_plot(options.plot, found)
    print(f"{target.title}: {options.texts} texts, {options.batch} a request")
    print(f"{machine['processor']}, {machine['cores']} cores usable\n")
    print(bench_report.table(samples))
    return 0


def _target(settings: Settings, options: Options) -> HttpTarget | ServiceTarget:
    if options.url is not None:
        from cortex_embed.commands.bench_loop import HttpTarget

        return HttpTarget(
            options.url, options.model, encoding=options.encoding, headers=options.headers
        )
    from cortex_embed.commands import download
    from cortex_embed.commands.bench_load import ServiceTarget
    from cortex_embed.composition import build_service

    return ServiceTarget(build_service(settings, download.here(settings)))


def _measure(
    target: HttpTarget | ServiceTarget, batches: Sequence[Sequence[str]], options: Options
) -> list[Sample]:
    from cortex_embed.commands import bench_loop

    bar = _progress_bar(options.duration * len(options.concurrency))
    try:
        loads = _loads(options, bar)
        if isinstance(target, bench_loop.HttpTarget):
            return bench_loop.run(target, batches, loads)
        import asyncio

        from cortex_embed.commands import bench_load

        return asyncio.run(bench_load.run(target, batches, loads))
    finally:
        bar.close()


def _loads(options: Options, bar: Any) -> Iterator[Load]:
    """The loads in turn, each said on the bar when it begins."""
    from cortex_embed.commands.bench_window import Load

    for concurrency in options.concurrency:
        bar.set_description(f"{concurrency} clients")
        yield Load(concurrency, options.batch, options.duration, tick=bar.update)


def _progress_bar(seconds: float) -> Any:
    """A bar over the seconds of all measurements, on a terminal only."""
    from tqdm import tqdm

    return tqdm(
        total=round(seconds, 1),
        bar_format="{desc} |{bar}| {percentage:3.0f} % [{elapsed} < {remaining}]",
        leave=False,
        disable=not sys.stderr.isatty(),
        file=sys.stderr,
        dynamic_ncols=True,
    )


def _facts(target: HttpTarget | ServiceTarget, options: Options, texts: int) -> dict[str, Any]:
    """What was measured, where, and when: a figure without them means nothing."""
    from datetime import UTC, datetime

    from cortex_embed import __version__
    from cortex_embed.commands.bench_machine import machine

    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "machine": machine(),
        "target": target.title,
        "texts": options.texts,
        "distinct_texts": texts,
        "batch": options.batch,
        "encoding": options.encoding if options.url else None,
        "duration_s": options.duration,
    }
