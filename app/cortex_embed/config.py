"""Everything configurable, in one table: `Settings`.

A field is declared once. Its flag (`--max-batch-tokens`), environment variable
(`CORTEX_EMBED_MAX_BATCH_TOKENS`), settings-file key (`max_batch_tokens`) and README row
follow from its name. Flag beats environment beats file beats default.

Nothing else in the package may read `os.environ`, and this module must never import
anything heavy: `--help` is made from it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ENV_PREFIX = "CORTEX_EMBED_"
CONFIG_ENV = ENV_PREFIX + "CONFIG"
Command = Literal["serve", "rpc", "embed", "selftest", "bench", "models"]
HOSTED: tuple[Command, ...] = ("serve", "rpc")
ALL: tuple[Command, ...] = (*HOSTED, "embed", "selftest", "bench")
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}


def text(raw: str) -> str:
    if not raw.strip():
        raise ValueError("must not be empty")
    return raw


def path(raw: str) -> Path:
    return Path(text(raw)).expanduser()


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser of whole numbers in [low, high]."""

    def parse(raw: str) -> int:
        try:
            value = int(raw)
        except ValueError:
            raise ValueError("must be a whole number") from None
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return parse


def size(raw: str) -> int:
    """Bytes: `33554432`, `32MiB`, `10MB`. At least 1 KiB."""
    found = re.fullmatch(r"(\d+)\s*([kmg]i?)?b?", raw.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("must be a size such as 32MiB")
    value = int(found[1]) * _UNITS[(found[2] or "").lower()]
    if not 1024 <= value <= 2**40:
        raise ValueError("must be from 1KiB to 1024GiB")
    return value


def size_or_none(raw: str) -> int:
    """Bytes as `size` reads them, or 0."""
    return 0 if raw.strip() == "0" else size(raw)


def duration(raw: str) -> float:
    """Seconds: `30`, `30s`, `15m`, `500ms`. From 0 to 24 hours."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?", raw.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("must be a duration such as 30s or 15m")
    value = float(found[1]) * _SECONDS[(found[2] or "").lower()]
    if value > 86_400:
        raise ValueError("must be at most 24h")
    return value


def boolean(raw: str) -> bool:
    lowered = raw.strip().lower()
    if lowered in {"1", "true", "yes", "on"}:
        return True
    if lowered in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def choice(*options: str) -> Callable[[str], str]:
    """A parser that takes only `options`."""

    def parse(raw: str) -> str:
        if raw not in options:
            raise ValueError(f"must be one of {', '.join(options)}")
        return raw

    return parse


def _setting(
    default: Any,
    parse: Callable[[str], Any],
    metavar: str,
    help: str,  # noqa: A002 - argparse's own word
    *,
    on: tuple[Command, ...] = ("serve",),
    shown: str | None = None,
) -> Any:
    """One row of the table: `shown` is how README and --help print the default."""
    return field(
        default=default,
        metadata={"parse": parse, "metavar": metavar, "help": help, "on": on, "shown": shown},
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The table. Constructors elsewhere take plain values, never this object's source."""

    model: str | None = _setting(
        None,
        text,
        "NAME",
        "model to serve: a catalogue id or alias, or the path of an artifact directory",
        on=ALL,
        shown="the embedded model",
    )
    model_dir: Path | None = _setting(
        None,
        path,
        "DIR",
        "look for artifact directories here before the data directory",
        on=(*ALL, "models"),
        shown="the platform's data directory",
    )
    host: str = _setting("127.0.0.1", text, "ADDRESS", "address to listen on")
    port: int = _setting(
        8121, integer(0, 65_535), "PORT", "port to listen on; 0 lets the system choose"
    )
    precision: str = _setting(
        "fp32",
        choice("auto", "fp32", "int8"),
        "PRECISION",
        "fp32 gives the authors' vectors; int8 is faster and close to them; auto takes int8 where "
        "the model has passed its quality gate and the processor is fast at it",
        on=ALL,
    )
    threads: int = _setting(
        0,
        integer(0, 1024),
        "N",
        "threads that compute vectors (short requests have one more while bulk keeps all of them "
        "busy); 0 means every physical core this process may use",
        on=ALL,
        shown="0",
    )
    max_batch_tokens: int = _setting(
        256,
        integer(16, 1_000_000),
        "TOKENS",
        "token budget of one micro-batch, padding included",
        on=ALL,
    )
    max_memory: int = _setting(
        0,
        size_or_none,
        "SIZE",
        "bound on this process's memory, kept by making micro-batches smaller and fewer; 0 for "
        "none (Linux only)",
        on=ALL,
        shown="0",
    )
    max_queue_tokens: int = _setting(
        2_097_152,
        integer(512, 10**9),
        "TOKENS",
        "tokens that may wait before requests are refused with 429",
        on=HOSTED,
    )
    max_inputs: int = _setting(2048, integer(1, 1_000_000), "N", "texts per request", on=HOSTED)
    max_text_chars: int = _setting(
        1_000_000, integer(1, 10**9), "CHARS", "characters per text", on=ALL
    )
    max_body_bytes: int = _setting(
        16 * 2**20,
        size,
        "SIZE",
        "size of a request body, and of a line for rpc",
        on=HOSTED,
        shown="16MiB",
    )
    body_timeout: float = _setting(
        60.0, duration, "TIME", "time a client has to send its body; 0 for no limit", shown="60s"
    )
    on_overlong: str = _setting(
        "truncate",
        choice("truncate", "error"),
        "POLICY",
        "a text over the model's max_tokens, where the request does not say: truncate (and report "
        "it) or error",
        on=ALL,
    )
    grace_period: float = _setting(
        30.0,
        duration,
        "TIME",
        "time in-flight requests have to finish on SIGTERM; 0 cuts them at once",
        on=HOSTED,
        shown="30s",
    )
    access_log: bool = _setting(
        False, boolean, "", "log one line per request (never texts)", shown="false"
    )
    log_level: str = _setting(
        "info",
        choice("debug", "info", "warning", "error"),
        "LEVEL",
        "least severe level logged to stderr",
        on=ALL,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """One setting as flags, README and parsers see it."""

    name: str
    flag: str
    env: str
    default: Any
    shown: str
    parse: Callable[[str], Any]
    metavar: str
    help: str
    on: tuple[Command, ...]

    @property
    def is_switch(self) -> bool:
        return self.parse is boolean


def rows() -> list[Row]:
    """The table, in the order of declaration."""
    return [
        Row(
            name=f.name,
            flag="--" + f.name.replace("_", "-"),
            env=ENV_PREFIX + f.name.upper(),
            default=f.default,
            shown=f.metadata["shown"] or str(f.default),
            parse=f.metadata["parse"],
            metavar=f.metadata["metavar"],
            help=f.metadata["help"],
            on=f.metadata["on"],
        )
        for f in fields(Settings)
    ]


def _parse(row: Row, raw: str, source: str) -> Any:
    try:
        return row.parse(raw)
    except ValueError as why:
        raise UsageError(f"{source}: {raw!r} {why}.") from None


def _from_file(location: Path) -> dict[str, Any]:
    import tomllib

    try:
        table = tomllib.loads(location.read_text(encoding="utf-8"))
    except OSError as why:
        raise UsageError(f"--config: cannot read {location}: {why.strerror}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as why:
        raise UsageError(f"--config: {location} is not valid TOML: {why}.") from None
    known = {row.name: row for row in rows()}
    values = {}
    for key, value in table.items():
        if key not in known:
            raise UsageError(
                f"--config: {location} has an unknown key {key!r}. Known keys: {', '.join(known)}."
            )
        if not isinstance(value, str | int | float | bool):
            raise UsageError(f"--config: {key} in {location} must be a single value.")
        values[key] = _parse(known[key], str(value), f"--config: {key} in {location}")
    return values


def load(flags: Mapping[str, str | None], config: Path | None = None) -> Settings:
    """Settings from flags (raw strings by setting name), environment and file.

    Raises UsageError naming the flag, variable or key, the value and what is allowed.
    """
    location = config or (Path(os.environ[CONFIG_ENV]) if os.environ.get(CONFIG_ENV) else None)
    values = _from_file(location) if location else {}
    for row in rows():
        raw = flags.get(row.name)
        if raw is not None:
            values[row.name] = _parse(row, raw, row.flag)
        elif row.env in os.environ:
            values[row.name] = _parse(row, os.environ[row.env], row.env)
    return Settings(**values)


def prepare_runtime_environment() -> None:
    """Set what native libraries read from the environment when they are loaded.

    onnxruntime's wheels upload usage data unless ORT_DISABLE_TELEMETRY is set before the
    library is loaded (microsoft/onnxruntime#27379); the tokenizers library starts one
    thread per core unless told not to. Call before importing either.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def no_color() -> bool:
    """Whether the person asked for no colour (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))
