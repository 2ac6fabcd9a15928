"""`cortex-embed ensure`: print the ready event of a running server, starting it if need be.

For programs that share one server instead of keeping one each. It must never start a second
server of the same identity, nor leave one behind that the next `ensure` cannot find.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cortex_embed.commands import download
from cortex_embed.commands.instances import Identity, Instance, Record, identity, runtime_dir
from cortex_embed.config import DECIDED_BY_ENSURE, child_environment, rows
from cortex_embed.errors import InstanceError, OutputError, UsageError
from cortex_embed.parsers import duration
from cortex_embed.processes import started

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from cortex_embed.config import Settings

_TOKEN_ENV = "CORTEX_EMBED_TOKEN"  # noqa: S105 - the name of a variable
# Where a settings file may say otherwise. A server in the background has no host to follow.
_FORCED = {"port": "0", "sidecar": "false", "exit_on_stdin_close": "false", "parent_pid": "0"}
_FORCED |= {"ready_fd": "0"}
# Both are 0 except on Windows.
_DETACHED = getattr(subprocess, "DETACHED_PROCESS", 0) | getattr(
    subprocess, "CREATE_NEW_PROCESS_GROUP", 0
)
_TICK = 0.02
_LOG_SHOWN = 4096
_LINES_SHOWN = 15


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beyond the settings. `flags` are passed on to `serve`."""

    idle_exit: str = "15m"
    wait: float = 60.0
    flags: tuple[str, ...] = ()

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        """Raises UsageError."""
        flags = [
            f"{row.flag}={value}"
            for row in rows()
            if "serve" in row.on
            and row.name not in DECIDED_BY_ENSURE
            and (given := getattr(arguments, row.name, None)) is not None
            for value in (given if row.is_list else [given])
        ]
        if arguments.config is not None:
            flags.append(f"--config={arguments.config}")
        seconds("--idle-exit", arguments.idle_exit)
        wait = seconds("--wait", arguments.wait)
        return cls(arguments.idle_exit, wait, tuple(flags))


def run(settings: Settings, options: Options, program: Sequence[str] | None = None) -> int:
    """Print one ready event; the exit code. `program` is what starts this program.

    Raises InstanceError with the server's own exit code where it ended before it was ready.
    """
    if getattr(settings, "uds", None) is not None:
        raise UsageError("--uds: ensure shares a server on a port; leave it out of the settings.")
    download.here(settings)  # in front of the person who asks, not in a log; and not in --wait
    deadline = time.monotonic() + options.wait
    wanted = identity(settings)
    instance = Instance(runtime_dir(settings), wanted.key)
    state, event = instance.state()
    if state != "running" or event is None:
        event = _found_or_started(instance, wanted, options, deadline, program or _program())
    print(json.dumps(event), flush=True)
    return 0


def seconds(flag: str, raw: str) -> float:
    """A duration given by a flag that is no setting. Raises UsageError."""
    try:
        return duration(raw)
    except ValueError as why:
        raise UsageError(f"{flag}: {raw!r} {why}.") from None


def _program() -> list[str]:
    frozen = getattr(sys, "frozen", False)
    return [sys.executable] if frozen else [sys.executable, "-m", "cortex_embed"]


def _found_or_started(
    instance: Instance,
    wanted: Identity,
    options: Options,
    deadline: float,
    program: Sequence[str],
) -> dict[str, Any]:
    try:
        with instance.starting(deadline):
            event = _found(instance, wanted, options, deadline)
            if event is not None:
                return event
            instance.forget()
            return _started(instance, wanted, options, deadline, program)
    except TimeoutError:
        raise InstanceError(
            f"Another `cortex-embed ensure` has been starting {wanted} for {options.wait:g} s. "
            f"Ask again, or wait longer with --wait; its log is {instance.log}."
        ) from None
    except OSError as why:
        raise OutputError(
            f"{why.filename or instance.directory} cannot be used: {why.strerror or why}. "
            "Name another place with --runtime-dir."
        ) from None


def _found(
    instance: Instance, wanted: Identity, options: Options, deadline: float
) -> dict[str, Any] | None:
    """The event of a server that runs, or is about to; None where there is none."""
    while True:
        state, event = instance.state()
        if state == "running":
            return event
        if state == "gone":
            return None
        if time.monotonic() >= deadline:
            what = "is still loading" if state == "starting" else "does not answer"
            raise InstanceError(
                f"The running server of {wanted} {what} after {options.wait:g} s. Ask again, wait "
                f"longer with --wait, or end it with `cortex-embed stop`; its log is "
                f"{instance.log}."
            )
        time.sleep(_TICK)


def _started(
    instance: Instance,
    wanted: Identity,
    options: Options,
    deadline: float,
    program: Sequence[str],
) -> dict[str, Any]:
    """Start a server and wait until it is ready. Raises InstanceError, OSError."""
    # A name of its own: a server that is stopping removes its file, and must not remove this.
    ready = instance.directory / f"{instance.key}.{secrets.token_hex(4)}.ready"
    process = _spawn([*program, *_command(ready, options)], instance.log)
    record = Record(
        pid=process.pid,
        started=started(process.pid),
        ready=ready.name,
        model=wanted.model,
        precision=wanted.precision,
        version=wanted.version,
    )
    instance.write(record)
    while True:
        code = process.poll()
        if (event := instance.event(record)) is not None and code is None:
            # It outlives us, so it is not ours to wait for: subprocess need not warn of that.
            process.returncode = 0
            return event
        if code is not None:
            instance.forget()
            raise _ended(wanted, instance.log, code)
        if time.monotonic() >= deadline:
            process.returncode = 0
            raise InstanceError(
                f"{wanted} was not ready after {options.wait:g} s. It goes on loading (process "
                f"{process.pid}): ask again, wait longer with --wait, or end it with "
                f"`cortex-embed stop`; its log is {instance.log}."
            )
        time.sleep(_TICK)


def _command(ready: Path, options: Options) -> list[str]:
    known = {row.name: row.flag for row in rows()}
    forced = [f"{known[name]}={value}" for name, value in _FORCED.items() if name in known]
    return [
        "serve",
        *options.flags,
        *forced,
        f"--ready-file={ready}",
        f"--token-env={_TOKEN_ENV}",
        f"--idle-exit={options.idle_exit}",
    ]


def _spawn(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start `command` so that nothing of ours keeps it, or is kept by it. Raises OSError."""
    environment = child_environment(
        {_TOKEN_ENV: secrets.token_urlsafe(32)}, without=DECIDED_BY_ENSURE
    )
    log.write_bytes(b"")
    log.chmod(0o600)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # of no effect on Windows
            creationflags=_DETACHED,
        )


def _ended(wanted: Identity, log: Path, code: int) -> InstanceError:
    """Why there is no server, in its own last words, with its own exit code."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _LOG_SHOWN))
        lines = file.read().decode("utf-8", "replace").splitlines()[-_LINES_SHOWN:]
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    words = "".join(f"\n  {line}" for line in lines) or " It said nothing."
    exit_code = 128 - code if code < 0 else code or 1
    return InstanceError(
        f"{wanted} ended before it was ready ({how}). Its last words:{words}", exit_code=exit_code
    )
