"""The actions of `cortex-embed service`: their words on the command line, and who does them.

Apart from `cli`, since no other command should pay for their parsers at its start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cortex_embed.settings_rows import Command

FORMATS = ("systemd", "launchd", "windows")


def add_actions(
    parser: argparse.ArgumentParser,
    add_settings: Callable[[argparse.ArgumentParser, Command], None],
) -> None:
    """Give `parser` one subparser an action; what defines a service takes the settings of serve."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, summary: str) -> argparse.ArgumentParser:
        action = actions.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
        )
        action.add_argument(
            "--system",
            action="store_true",
            help="of the whole system and not of this user (systemd, root)",
        )
        return action

    install = add("install", "run `serve` now and at each login, with these settings")
    show = add("print", "print what `install` would write, and nothing else")
    show.add_argument(
        "--format", choices=FORMATS, help="for this manager (default: that of this system)"
    )
    for one in (install, show):
        add_settings(one, "service")
    add("uninstall", "stop the service and remove what `install` wrote")
    add("status", "whether the service is installed and runs; exit code 1 if not")


def run(arguments: argparse.Namespace) -> int:
    """Do the action that was asked for; the exit code. Raises EmbedError."""
    from cortex_embed.commands import service

    actions: dict[str, Callable[[], int]] = {
        "install": lambda: service.install(arguments),
        "print": lambda: service.show(arguments),
        "uninstall": lambda: service.uninstall(arguments),
        "status": lambda: service.status(arguments),
    }
    return actions[arguments.action]()
