"""`cortex-embed stop`: end servers that `ensure` started, and wait until they are gone.

They finish what is in flight, as with any SIGTERM. It must never end a process that it does
not know to be one of them.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cortex_embed.commands.ensure import seconds
from cortex_embed.commands.instances import Instance, Record, all_of, identity, runtime_dir
from cortex_embed.errors import InstanceError
from cortex_embed.processes import parent_of
from cortex_embed.waiting import settle

if TYPE_CHECKING:
    import argparse

    from cortex_embed.config import Settings


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says beyond the settings."""

    everything: bool = False
    wait: float = 35.0

    @classmethod
    def from_arguments(cls, arguments: argparse.Namespace) -> Options:
        """Raises UsageError."""
        return cls(arguments.all, seconds("--wait", arguments.wait))


def run(settings: Settings, options: Options) -> int:
    """Stop, print what was stopped; the exit code. Raises InstanceError for what stays."""
    directory = runtime_dir(settings)
    there = [i for i in all_of(directory) if _is_there(i)]
    meant = there
    if not options.everything:
        wanted = identity(settings)
        meant = [i for i in there if i.key == wanted.key]
        if not meant:
            more = f" {len(there)} other(s) run: --all stops them." if there else ""
            print(f"No background server of {wanted} is running.{more}")
            return 0
    if not meant:
        print("No background server is running.")
        return 0
    deadline = time.monotonic() + options.wait
    asked = [(instance, record, _ask(instance, record)) for instance, record in _records(meant)]
    stay = []
    for instance, record, event in asked:
        if _left(record, event, deadline):
            _forget(instance)
            where = f", {event['url']}" if event and "url" in event else ""
            print(f"Stopped {record.model} ({record.precision}), process {record.pid}{where}.")
        else:
            stay.append(str(record.pid))
    if stay:
        raise InstanceError(
            f"Process {', '.join(stay)} has not ended after {options.wait:g} s: it may still be "
            "finishing requests. Wait longer with --wait, or end it by force."
        )
    return 0


def _records(instances: list[Instance]) -> list[tuple[Instance, Record]]:
    return [(i, record) for i in instances if (record := i.record()) is not None]


def _is_there(instance: Instance) -> bool:
    """Whether its process lives, whatever it answers; what does not is forgotten."""
    record = instance.record()
    if record is not None and record.alive:
        return True
    _forget(instance)
    return False


def _ask(instance: Instance, record: Record) -> dict[str, Any] | None:
    """Ask the process to end; its ready event."""
    event = instance.event(record)
    inner = event["pid"] if event else record.pid
    # A one-file server's outer process cleans up after the inner one, so that is asked; but only
    # if it is its child, since its number may have been given away.
    pid = inner if parent_of(inner) == record.pid else record.pid
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGTERM)
    return event


def _left(record: Record, event: dict[str, Any] | None, deadline: float) -> bool:
    pids = {record.pid, event["pid"] if event else record.pid}
    return all(settle(pid, max(0.0, deadline - time.monotonic())) for pid in pids)


def _forget(instance: Instance) -> None:
    """Unless someone is just starting another one in its place."""
    with suppress(OSError), instance.starting(time.monotonic()):
        if (record := instance.record()) is None or not record.alive:
            instance.forget()
