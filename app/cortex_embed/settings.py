"""Everything configurable, in one table: `Settings`.

A field is declared once. Its flag (`--max-batch-tokens`), environment variable
(`CORTEX_EMBED_MAX_BATCH_TOKENS`), settings-file key (`max_batch_tokens`) and README row
follow from its name. It must never look for a value (`config` does), nor import anything
heavy: `--help` is made from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.parsers import (
    boolean,
    choice,
    duration,
    integer,
    names,
    origins,
    path,
    size,
    size_or_none,
    text,
)
from cortex_embed.settings_rows import rows_of, setting

if TYPE_CHECKING:
    from cortex_embed.settings_rows import Command, Row

HOSTED: tuple[Command, ...] = ("serve", "rpc")
ALL: tuple[Command, ...] = (*HOSTED, "embed", "selftest", "bench", "fingerprint", "doctor")
SEVERAL_MODELS: tuple[Command, ...] = ("serve", "ensure", "stop")
"""Commands that mean all the models that are named; the others mean the first."""
IDENTITY = frozenset({"model", "model_dir", "precision", "engine", "on_overlong"})
"""Settings that the answers depend on: servers that share them are interchangeable."""
DECIDED_BY_ENSURE = frozenset(
    {"port", "uds", "sidecar", "token_env", "ready_file", "ready_fd", "parent_pid"}
    | {"exit_on_stdin_close", "idle_exit"}
)
"""Settings of `serve` that say whose server it is."""
NOT_FOR_A_SERVICE = frozenset(
    {"sidecar", "token_env", "ready_fd", "parent_pid", "exit_on_stdin_close", "idle_exit"}
)
"""Settings of `serve` that need a host program, or end a server that nobody would start again."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class Settings:
    """The table. Constructors elsewhere take plain values, never this object's source."""

    model: tuple[str, ...] = setting(
        (),
        names,
        "NAME",
        "model to serve: a catalogue id or alias, or the path of an artifact directory; serve "
        "takes several (repeat the flag; commas in the variable; a list in the file): the first "
        "is the default and the only one for other commands, the rest are loaded on first use",
        on=ALL,
        shown="the embedded model",
    )
    model_dir: Path | None = setting(
        None,
        path,
        "DIR",
        "look for artifact directories here before the data directory",
        on=(*ALL, "models", "pull"),
        shown="the platform's data directory",
    )
    catalogue: Path | None = setting(
        None,
        path,
        "FILE",
        "know the models in FILE as well, a TOML file like our own catalogue.toml",
        on=(*ALL, "models", "pull"),
        shown="none",
    )
    offline: bool = setting(
        False,
        boolean,
        "",
        "never reach for the network: a model that is not on this machine is an error "
        "(HF_HUB_OFFLINE=1 asks for it as well)",
        on=(*ALL, "pull"),
        shown="false",
    )
    stall_timeout: float = setting(
        30.0,
        duration,
        "TIME",
        "give a download up after so long without a byte (what has arrived is kept); 0 for never",
        on=(*ALL, "pull"),
        shown="30s",
    )
    accept_terms: bool = setting(
        False,
        boolean,
        "",
        "accept the terms of use of a model that has some, so that it is downloaded",
        on=(*ALL, "pull"),
        shown="false",
    )
    host: str = setting("127.0.0.1", text, "ADDRESS", "address to listen on")
    port: int = setting(
        8121, integer(0, 65_535), "PORT", "port to listen on; 0 lets the system choose"
    )
    precision: str | None = setting(
        None,
        choice("auto", "fp32", "int16", "int8"),
        "PRECISION",
        "fp32 gives the authors' vectors; int16 (native engine only) is within a millionth of them "
        "in cosine; int8 is the fastest and close to them; auto takes int8 where the model has "
        "passed its quality gate and int8 is faster here, else fp32",
        on=ALL,
        shown="fp32, or what the model has",
    )
    engine: str = setting(
        "auto",
        choice("auto", "native", "onnxruntime"),
        "ENGINE",
        "what computes the vectors: native is cortex-embed's own kernels, for BERT models; "
        "onnxruntime runs every model; auto takes native where model and processor allow it",
        on=ALL,
    )
    threads: int = setting(
        0,
        integer(0, 1024),
        "N",
        "threads that compute vectors (short requests have one more while bulk keeps all of them "
        "busy); 0 means every physical core this process may use",
        on=ALL,
        shown="0",
    )
    max_batch_tokens: int = setting(
        256,
        integer(16, 1_000_000),
        "TOKENS",
        "token budget of one micro-batch, padding included",
        on=ALL,
    )
    max_memory: int = setting(
        0,
        size_or_none,
        "SIZE",
        "bound on this process's memory, kept by making micro-batches smaller and fewer; 0 for "
        "none (Linux only)",
        on=ALL,
        shown="0",
    )
    max_models_memory: int = setting(
        0,
        size_or_none,
        "SIZE",
        "bound on what loaded models take together, kept by unloading the least recently used; 0 "
        "for none, or half of --max-memory",
        shown="0",
    )
    model_idle: float = setting(
        600.0,
        duration,
        "TIME",
        "time without use after which a model other than the default is unloaded; 0 for never",
        shown="10m",
    )
    max_queue_tokens: int = setting(
        2_097_152,
        integer(512, 10**9),
        "TOKENS",
        "tokens that may wait before requests are refused with 429",
        on=HOSTED,
    )
    max_inputs: int = setting(16_384, integer(1, 1_000_000), "N", "texts per request", on=HOSTED)
    max_request_tokens: int = setting(
        2_097_152,
        integer(512, 10**9),
        "TOKENS",
        "tokens per request, counted after truncation",
        on=HOSTED,
    )
    max_text_chars: int = setting(
        1_000_000, integer(1, 10**9), "CHARS", "characters per text", on=ALL
    )
    max_body_bytes: int = setting(
        16 * 2**20,
        size,
        "SIZE",
        "size of a request body, and of a line for rpc",
        on=HOSTED,
        shown="16MiB",
    )
    body_timeout: float = setting(
        60.0, duration, "TIME", "time a client has to send its body; 0 for no limit", shown="60s"
    )
    on_overlong: str = setting(
        "truncate",
        choice("truncate", "error"),
        "POLICY",
        "a text over the model's max_tokens, where the request does not say: truncate (and report "
        "it) or error",
        on=ALL,
    )
    grace_period: float = setting(
        30.0,
        duration,
        "TIME",
        "time in-flight requests have to finish on SIGTERM; 0 cuts them at once",
        on=HOSTED,
        shown="30s",
    )
    load_wait: float = setting(
        0.0,
        duration,
        "TIME",
        "time embedding requests wait for the model to load before they are answered with 503",
        shown="0s",
    )
    idle_exit: float = setting(
        0.0,
        duration,
        "TIME",
        "stop after so long without a request in flight (probes do not count); 0 for never",
        shown="0s",
    )
    uds: Path | None = setting(
        None, path, "PATH", "listen on a Unix socket (mode 0600) instead of a port", shown="none"
    )
    sidecar: bool = setting(
        False,
        boolean,
        "",
        "serve the program that started us: a free port on loopback, events as JSON lines on "
        "stdout, a fresh token, and stop when that program is gone",
        shown="false",
    )
    token_env: str | None = setting(
        None,
        text,
        "NAME",
        "ask clients for the API token that is in the environment variable NAME",
        shown="none",
    )
    api_key_file: Path | None = setting(
        None,
        path,
        "PATH",
        "ask clients for one of the API keys in PATH: one a line, # begins a comment "
        "(CORTEX_EMBED_API_KEYS, comma-separated, adds to them)",
        shown="none",
    )
    cors_origins: tuple[str, ...] | None = setting(
        None,
        origins,
        "ORIGINS",
        "let web pages of these origins use the server: https://app.example,http://localhost:3000, "
        "or * for all",
        shown="none",
    )
    ready_file: Path | None = setting(
        None,
        path,
        "PATH",
        "write the ready event to PATH (mode 0600) once requests are served; removed at the stop",
        shown="none",
    )
    ready_fd: int = setting(
        0,
        integer(0, 65_535),
        "N",
        "write the events to the inherited file descriptor N as well (POSIX); 0 for none",
    )
    parent_pid: int = setting(
        0,
        integer(0, 2**31 - 1),
        "N",
        "stop when process N is gone; 0 for none (with --sidecar: the process that started us)",
    )
    exit_on_stdin_close: bool | None = setting(
        None,
        boolean,
        "",
        "stop when stdin, where it is a pipe, ends (with --sidecar: true)",
        shown="false",
    )
    access_log: bool = setting(
        False, boolean, "", "log one line per request (never texts)", shown="false"
    )
    runtime_dir: Path | None = setting(
        None,
        path,
        "DIR",
        "where ensure and stop keep what they know of background servers; a directory of mode 0700",
        on=("ensure", "stop"),
        shown="the platform's runtime directory",
    )
    log_level: str = setting(
        "info",
        choice("debug", "info", "warning", "error"),
        "LEVEL",
        "least severe level logged to stderr",
        on=ALL,
    )
    log_format: str = setting(
        "text",
        choice("text", "json"),
        "FORMAT",
        "what is written to stderr: text for people, or json, one object a line",
        on=HOSTED,
    )


def rows() -> list[Row]:
    """The table, in the order of declaration."""
    return rows_of(Settings)


def takes(command: Command, row: Row) -> bool:
    """Whether `command` has the flag of `row`: what `ensure` starts takes what `serve` takes, and
    so does what a service manager starts."""
    if command == "service":
        return "serve" in row.on and row.name not in NOT_FOR_A_SERVICE
    if command == "ensure" and row.name not in DECIDED_BY_ENSURE and "serve" in row.on:
        return True
    return command in row.on or (command == "stop" and row.name in IDENTITY)
