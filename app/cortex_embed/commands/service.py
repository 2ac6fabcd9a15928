"""`cortex-embed service`: hand `serve` over to the system's service manager, or take it back.

Everything is checked before anything is written. It must never change a definition that it did
not write, nor leave one behind that does not start.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from cortex_embed.cli_service import FORMATS
from cortex_embed.errors import EmbedError, NotInstalledError, OutputError, UsageError
from cortex_embed.managers.job import Job, job_of
from cortex_embed.managers.manager import Manager, is_ours
from cortex_embed.managers.program import must_start, passing, program

if TYPE_CHECKING:
    import argparse

_PLATFORM: str = sys.platform  # a plain string: mypy would judge by its own platform


def show(arguments: argparse.Namespace) -> int:
    """Print the definition, and nothing else, to stdout; the exit code."""
    manager = manager_of(arguments.format or _format_here(), system=arguments.system)
    job = job_of(arguments, program())
    _note(passing(job.program))
    definition = manager.definition(job)
    if sys.stdout.isatty() or not hasattr(sys.stdout, "buffer"):
        encoding = "utf-16" if definition.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        print(definition.decode(encoding), end="")
    else:
        sys.stdout.buffer.write(definition)
        sys.stdout.buffer.flush()
    _notes()
    return 0


def install(arguments: argparse.Namespace) -> int:
    """Check, write, start, and say what was done; the exit code. Raises EmbedError."""
    manager = manager_of(_format_here(), system=arguments.system)
    words = program()
    if why := passing(words):
        raise UsageError(why)
    job = job_of(arguments, words)
    definition = manager.definition(job)
    manager.check()
    before = _ours(manager)
    must_start(words)
    _check_model(job)
    _check_keys(job)
    _check_address(job, replaces=before is not None)
    _put(manager, definition, before)
    done = "Installed" if before is None else "Replaced"
    print(f"{done} {manager.place} and started it: {job.address}")
    for what, command in manager.hints().items():
        print(f"  {what}: {command}")
    print("  remove: cortex-embed service uninstall" + (" --system" if job.system else ""))
    if len(words) > 1:
        print(f"It runs {' '.join(words)}: install it again when that environment has moved.")
    _notes()
    return 0


def uninstall(arguments: argparse.Namespace) -> int:
    """Stop and remove it; where there is nothing, say so. The exit code. Raises EmbedError."""
    manager = manager_of(_format_here(), system=arguments.system)
    if _ours(manager) is None:
        print(f"Nothing to remove: {manager.place} is not there.")
        return 0
    manager.check()
    manager.remove()
    print(f"Stopped it and removed {manager.place}.")
    return 0


def status(arguments: argparse.Namespace) -> int:
    """Print how it is; 0 where it runs, else 1. Raises EmbedError."""
    manager = manager_of(_format_here(), system=arguments.system)
    found = manager.installed()
    if found is None:
        print(f"Not installed: {manager.place} is not there.")
        return 1
    running, words = manager.state()
    whose = "" if is_ours(found) else " (not written by `cortex-embed service install`)"
    print(f"{manager.place}{whose}: {words}")
    return 0 if running else 1


def manager_of(name: str, *, system: bool = False) -> Manager:
    """The manager of this name, one of FORMATS. Raises UsageError."""
    if system and name != "systemd":
        raise UsageError(f"--system: only with systemd; leave it out with {name}.")
    if name == "systemd":
        from cortex_embed.managers.systemd import Systemd

        return Systemd(system=system)
    if name == "launchd":
        from cortex_embed.managers.launchd import Launchd

        return Launchd()
    from cortex_embed.config import account
    from cortex_embed.managers.task_scheduler import TaskScheduler

    return TaskScheduler(account())


def _format_here() -> str:
    found = {"linux": "systemd", "darwin": "launchd", "win32": "windows"}.get(_PLATFORM)
    if found is None:
        raise UsageError(
            f"no service manager of {_PLATFORM} is known here; `service print --format NAME` "
            f"prints for {', '.join(FORMATS)}."
        )
    return found


def _ours(manager: Manager) -> bytes | None:
    """The definition that is there. Raises OutputError where somebody else wrote it."""
    found = manager.installed()
    if found is not None and not is_ours(found):
        raise OutputError(
            f"{manager.place} is there, and was not written by `cortex-embed service install`: it "
            "is left as it is. Remove it yourself if it is not wanted."
        )
    return found


def _put(manager: Manager, definition: bytes, before: bytes | None) -> None:
    """Install it; what does not start is taken back, and what was there before is put back."""
    try:
        manager.install(definition)
    except EmbedError as why:
        why.message = f"{why.message}\n{_taken_back(manager, before)}"
        raise


def _taken_back(manager: Manager, before: bytes | None) -> str:
    """What there is after a failed install, in words."""
    try:
        if before is None:
            manager.remove()
            return "Nothing was left behind."
        manager.install(before)
    except EmbedError as why:
        return f"And it could not be taken back: {why.message}"
    return "The service of before is back."


def _check_model(job: Job) -> None:
    """Download what is missing in front of the person; raises what would stop the server."""
    from cortex_embed.commands import download
    from cortex_embed.composition import locate_models

    try:
        locate_models(job.settings)
    except NotInstalledError:
        if job.system:
            download.planned(job.settings)
            _note("The model is not here yet: the service downloads it at its first start.")
        else:
            from cortex_embed.logs import Reporter

            person = Reporter()
            try:
                download.all_here(job.settings, person)
            finally:
                person.downloaded()


def _check_keys(job: Job) -> None:
    from cortex_embed import api_keys

    if job.settings.api_key_file is not None:
        api_keys.from_file(job.settings.api_key_file)


def _check_address(job: Job, *, replaces: bool) -> None:
    """Raises BindError where the address is taken: by whom, if not by what is replaced?"""
    from cortex_embed.commands import exposure
    from cortex_embed.commands.serve import listening

    if replaces:
        return
    with listening(job.settings) as listener:
        keyed = job.settings.api_key_file is not None
        for line in exposure.warnings(job.settings, listener, keyed=keyed):
            _note(line)


def _notes() -> None:
    """What the person may take for granted, and the service does not have."""
    from cortex_embed.config import set_here

    if names := set_here():
        _note(
            f"{', '.join(names)}: set in this shell, and NOT seen by the service. Give flags, or "
            "--config FILE; keys belong into --api-key-file."
        )


def _note(line: str) -> None:
    if line:
        print(f"cortex-embed: note: {line}", file=sys.stderr)
