"""The actions of `cortex-embed models`: their words on the command line, and who does them.

Apart from `cli`, since no other command should pay for seven parsers at its start.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from cortex_embed.config import Settings
    from cortex_embed.settings_rows import Command


def add_actions(
    parser: argparse.ArgumentParser,
    add_settings: Callable[[argparse.ArgumentParser, Command], None],
) -> None:
    """Give `parser` one subparser an action, each with its settings."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def add(name: str, summary: str, *, settings: Command = "models") -> argparse.ArgumentParser:
        action = actions.add_parser(
            name,
            help=summary,
            description=summary[0].upper() + summary[1:] + ".",
            allow_abbrev=False,
        )
        add_settings(action, settings)
        return action

    listing = add("list", "the catalogue, and what is on this machine")
    about = add("info", "all that is known of one model")
    for one in (listing, about):
        one.add_argument("--json", action="store_true", help="print JSON")
    pull = add("pull", "download a model of the catalogue, or mend it", settings="pull")
    where = add("path", "the directory of a model on this machine")
    remove = add("remove", "remove a downloaded or imported model")
    for one in (about, pull, where, remove):
        one.add_argument("name", metavar="NAME", help="catalogue id, repository or alias")
    verify = add("verify", "hash the files of one model, or of all")
    verify.add_argument("name", nargs="?", metavar="NAME", help="(default: all on this machine)")
    bring = add("import", "copy a model's directory into the data directory")
    bring.add_argument(
        "path", type=Path, metavar="PATH", help="an artifact directory, or Hugging Face's layout"
    )
    bring.add_argument("--id", metavar="ID", help="name it ID (default: its own)")


def run(arguments: argparse.Namespace, settings: Settings) -> int:
    """Do the action that was asked for; the exit code. Raises EmbedError."""
    from cortex_embed.commands import models, models_change

    actions: dict[str, Callable[[], int]] = {
        "list": lambda: models.list_models(settings, as_json=arguments.json),
        "info": lambda: models.info(settings, arguments.name, as_json=arguments.json),
        "path": lambda: models.path(settings, arguments.name),
        "verify": lambda: models.verify(settings, arguments.name),
        "pull": lambda: models_change.pull(settings, arguments.name),
        "remove": lambda: models_change.remove(settings, arguments.name),
        "import": lambda: models_change.import_model(settings, arguments.path, arguments.id),
    }
    return actions[arguments.action]()
