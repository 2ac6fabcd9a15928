"""What a service manager is to run: this program, the flags of its `serve`, and how they read.

Everything is decided when it is installed: the service sees another directory, another
environment and another time. So paths are made absolute here, and the person's environment is
left out. It must never hold a key: those stay in the file that --api-key-file names.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.config import NOT_FOR_A_SERVICE, load, rows
from cortex_embed.errors import UsageError
from cortex_embed.parsers import path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from cortex_embed.config import Settings
    from cortex_embed.settings_rows import Row

# What `--system` hides from the service: ProtectHome=, PrivateTmp=.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108 - nothing is made there


@dataclass(frozen=True, slots=True)
class Job:
    """A server to be run for good. `flags` are pairs: ("--port", "8121")."""

    program: tuple[str, ...]
    flags: tuple[tuple[str, str], ...]
    settings: Settings
    system: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The whole command line. A flag and its value are one word, whatever the value is."""
        return (*self.program, "serve", *(f"{flag}={value}" for flag, value in self.flags))

    @property
    def address(self) -> str:
        """Where the server will listen, for people."""
        if self.settings.uds is not None:
            return str(self.settings.uds)
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.settings.port or 'PORT'}"


def job_of(arguments: argparse.Namespace, program: tuple[str, ...]) -> Job:
    """The job that the command line asks for. Raises UsageError as `serve` would."""
    given: dict[str, str | list[str] | None] = {}
    for row in rows():
        value = getattr(arguments, row.name, None)
        if value is not None:
            given[row.name] = _rooted(row, value, arguments)
    config = arguments.config.expanduser().absolute() if arguments.config else None
    settings = load(given, config, environment=False)
    job = Job(program, tuple(_pairs(given, config)), settings, arguments.system)
    _refuse_what_no_service_can(job)
    if job.system:
        _refuse_what_the_system_hides(job, config)
    return job


def _pairs(
    given: dict[str, str | list[str] | None], config: Path | None
) -> Iterator[tuple[str, str]]:
    for row in rows():
        value = given.get(row.name)
        for one in [value] if isinstance(value, str) else value or ():
            yield row.flag, one
    if config is not None:
        yield "--config", str(config)


def _rooted(row: Row, value: str | list[str], arguments: argparse.Namespace) -> str | list[str]:
    """`value` as it reads from any directory."""
    if isinstance(value, list):
        return [_model(one, arguments) for one in value] if row.name == "model" else value
    if row.parse is path and value.strip():
        return str(path(value).absolute())
    return value


def _model(name: str, arguments: argparse.Namespace) -> str:
    """A directory by its whole path; a name of the catalogue as it is, also beside such a one."""
    from cortex_embed.models.catalogue import find

    place = Path(name).expanduser()
    known = find(name, Path(arguments.catalogue).expanduser() if arguments.catalogue else None)
    return str(place.absolute()) if place.is_dir() and known is None else name


def _refuse_what_no_service_can(job: Job) -> None:
    for name in sorted(NOT_FOR_A_SERVICE):
        if getattr(job.settings, name):
            raise UsageError(
                f"--config: {name} is not for a service, which has no host program to follow and "
                "must not end by itself. Leave it out of the file."
            )
    for row in rows():
        value = getattr(job.settings, row.name)
        if isinstance(value, Path) and not value.is_absolute():
            raise UsageError(
                f"--config: {row.name} is the relative path {value}, and a service has a directory "
                "of its own. Write the whole path."
            )


def _refuse_what_the_system_hides(job: Job, config: Path | None) -> None:
    """Raises UsageError for what a service of the system, a user of its own, cannot reach."""
    settings = job.settings
    for flag, file in (("--uds", settings.uds), ("--ready-file", settings.ready_file)):
        if file is not None:
            raise UsageError(
                f"{flag} {file}: with --system nobody but the service's own user could open it "
                "(mode 0600). Use --port, or install without --system."
            )
    wanted: list[tuple[str, Path]] = [("the program", Path(job.program[0]))]
    wanted += [("--config", config)] if config else []
    wanted += [("--model", Path(name)) for name in settings.model if Path(name).is_absolute()]
    for flag, place in (("--model-dir", settings.model_dir), ("--catalogue", settings.catalogue)):
        wanted += [(flag, place)] if place else []
    for what, place in wanted:
        hidden = next((one for one in _HIDDEN if place.is_relative_to(one)), None)
        if hidden is not None:
            raise UsageError(
                f"{what} {place}: a service of the system does not see {hidden}. Move it, to "
                "/usr/local/bin or /srv for example, or install without --system."
            )
