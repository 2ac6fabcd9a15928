"""The command line: parse, then hand over to one module of `commands`.

Every import that costs happens inside the function that needs it, so `--version`, `--help`
and usage errors load none of them. It must never hold the body of a command.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from cortex_embed import __version__
from cortex_embed.config import SEVERAL_MODELS, Settings, load, rows, takes
from cortex_embed.errors import EmbedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cortex_embed.settings_rows import Command

EXIT_CODES = """exit codes:
  0  done; for serve and rpc, stopped (by a signal, the host's end or --idle-exit) in good order
  1  unexpected failure
  2  wrong flag, setting or model name
  3  model file missing, damaged or not loadable
  4  cannot listen on the address
  5  a line of the input cannot be embedded
  6  output cannot be written
  7  selftest failed, or fingerprints differ
  8  the server to be measured cannot be reached, or answers with an error
  9  the executable cannot unpack its libraries
  10  a model cannot be downloaded
  141  nobody reads stdout any more
  128+N  stopped at once by a second signal N
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit the process with its documented code."""
    sys.exit(run(sys.argv[1:] if argv is None else list(argv)))


def run(argv: list[str]) -> int:
    """Parse `argv`, run its command, return the exit code."""
    argv = with_default_command(argv)
    arguments = build_parser(only=argv[0]).parse_args(argv)
    try:
        if getattr(sys, "frozen", False):
            from cortex_embed.onefile.start import begin

            begin(arguments.command)
        code = _dispatch(arguments)
        if sys.stdout is not None:  # as where a host has closed it
            sys.stdout.flush()
    except EmbedError as error:
        print(f"cortex-embed: error: {error.message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        from cortex_embed.commands.pipes import let_go_of_stdout

        if not let_go_of_stdout():
            raise
        return 141
    return code


def with_default_command(argv: list[str]) -> list[str]:
    """`cortex-embed --port 9000` means `cortex-embed serve --port 9000`."""
    if not argv or (argv[0].startswith("-") and argv[0] not in {"-h", "--help", "-V", "--version"}):
        return ["serve", *argv]
    return argv


def _dispatch(arguments: argparse.Namespace) -> int:
    return _COMMANDS[arguments.command](arguments)


def _serve(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import serve

    return serve.run(_settings(arguments))


def _selftest(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import selftest

    return selftest.run(_settings(arguments))


def _embed(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import embed

    return embed.run(_settings(arguments), embed.Options.from_arguments(arguments))


def _bench(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import bench

    return bench.run(_settings(arguments), bench.Options.from_arguments(arguments))


def _ensure(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import ensure

    return ensure.run(_settings(arguments), ensure.Options.from_arguments(arguments))


def _stop(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import stop

    return stop.run(_settings(arguments), stop.Options.from_arguments(arguments))


def _rpc(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import rpc

    return rpc.run(partial(_settings, arguments))


def _bundle(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import bundle

    return bundle.run(bundle.Options.from_arguments(arguments))


def _models(arguments: argparse.Namespace) -> int:
    from cortex_embed import cli_models

    return cli_models.run(arguments, _settings(arguments))


def _service(arguments: argparse.Namespace) -> int:
    from cortex_embed import cli_service

    return cli_service.run(arguments)


def _fingerprint(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import fingerprint

    return fingerprint.run(_settings(arguments), fingerprint.Options.from_arguments(arguments))


def _doctor(arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import doctor

    return doctor.run(_settings(arguments), as_json=arguments.json)


def _sidecar_schema(_arguments: argparse.Namespace) -> int:
    from cortex_embed.commands import sidecar_schema

    return sidecar_schema.run()


# Functions, not names of modules: PyInstaller and import-linter see no imports by string.
_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "serve": _serve,
    "rpc": _rpc,
    "embed": _embed,
    "selftest": _selftest,
    "bench": _bench,
    "bundle": _bundle,
    "ensure": _ensure,
    "stop": _stop,
    "models": _models,
    "service": _service,
    "fingerprint": _fingerprint,
    "doctor": _doctor,
    "sidecar-schema": _sidecar_schema,
}


def _settings(arguments: argparse.Namespace) -> Settings:
    flags = {row.name: getattr(arguments, row.name, None) for row in rows()}
    given = flags["model"] or ()
    if len(given) > 1 and arguments.command not in SEVERAL_MODELS:
        raise UsageError(
            f"--model: {arguments.command} takes one model, {len(given)} were given. Only "
            f"{', '.join(SEVERAL_MODELS)} take several."
        )
    return load(flags, arguments.config)


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The whole command line; setting flags come from the table in `config`.

    With `only`, no other command has its settings: what is not asked for costs a start nothing.
    """
    parser = argparse.ArgumentParser(
        prog="cortex-embed",
        description="Turn text into vectors: a local embedding server in one file.",
        epilog="Without a command, `serve` runs.\n\n" + EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"cortex-embed {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    add = partial(_add, commands, only)
    add("serve", "serve embeddings over HTTP (the default)")
    add("rpc", "serve embeddings as JSON lines over stdin and stdout, without a port")
    _add_embed(add("embed", "embed arguments, lines of stdin, or a file"))
    add("selftest", "embed the model's golden texts and compare")
    _add_bench(add("bench", "measure throughput and latency, here or of any server"))
    _add_bundle(commands)
    _add_ensure(add("ensure", "print the address of a shared server, starting it if need be"))
    _add_stop(add("stop", "end the shared server that ensure started"))
    _add_fingerprint(add("fingerprint", "print the identity of the vector space, or compare two"))
    doctor = add("doctor", "show what this installation sees of its machine, and would do")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    models = commands.add_parser(
        "models", help="what can be served: list, pull, verify, remove, …", allow_abbrev=False
    )
    if only in {None, "models"}:
        from cortex_embed import cli_models

        cli_models.add_actions(models, _add_settings)
    summary = "run serve for good: install, uninstall, print, status"
    service = commands.add_parser("service", help=summary, allow_abbrev=False)
    if only in {None, "service"}:
        from cortex_embed import cli_service

        cli_service.add_actions(service, _add_settings)
    summary = "print the JSON Schema of the events of serve --sidecar"
    commands.add_parser("sidecar-schema", help=summary, description=summary, allow_abbrev=False)
    return parser


def _add_bundle(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "bundle",
        help="make one executable of the slim one and a model",
        description="Make one executable of the slim one and a model.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="DIR", help="artifact directory to carry")
    add("-o", "--output", type=Path, required=True, metavar="FILE", help="executable to write")
    add("--from", type=Path, metavar="FILE", help="slim executable (default: this one)")


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    only: str | None,
    name: Command,
    summary: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if only in {None, name}:
        _add_settings(parser, name)
    return parser


def _add_settings(parser: argparse.ArgumentParser, command: Command) -> None:
    group = parser.add_argument_group("settings")
    for row in rows():
        if not takes(command, row):
            continue
        text = f"{row.help} (default: {row.shown}; {row.env})".replace("%", "%%")
        if row.is_switch:
            group.add_argument(
                row.flag, dest=row.name, nargs="?", const="true", metavar="BOOL", help=text
            )
        else:
            action = "append" if row.is_list else "store"
            group.add_argument(
                row.flag, dest=row.name, action=action, metavar=row.metavar, help=text
            )
    group.add_argument(
        "--config", type=Path, metavar="FILE", help="settings file in TOML (CORTEX_EMBED_CONFIG)"
    )


def _add_fingerprint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print what it is made of, as JSON")
    parser.add_argument(
        "--compare",
        metavar="OTHER",
        help="a file that --json wrote, a fingerprint (cx1:…), or the URL of a running server",
    )


def _add_ensure(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Settings beyond the model, its precision and --on-overlong count for a server that is "
        "started now;\none that runs already is printed as it is.\n\n" + EXIT_CODES
    )
    parser.add_argument(
        "--idle-exit",
        default="15m",
        metavar="TIME",
        help="a server that is started stops after so long without a request; 0 for never "
        "(default: 15m)",
    )
    parser.add_argument(
        "--wait",
        default="60s",
        metavar="TIME",
        help="time the server has to become ready (default: 60s)",
    )


def _add_stop(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--all", action="store_true", help="end all of this user's, whatever the model or version"
    )
    parser.add_argument(
        "--wait",
        default="35s",
        metavar="TIME",
        help="time a server has to finish its requests (default: 35s)",
    )


def _add_embed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "texts", nargs="*", metavar="TEXT", help="texts to embed; without any, lines of stdin"
    )
    parser.add_argument(
        "--input",
        metavar="FILE",
        help="embed each line of FILE (.txt), or the text of each line's JSON (.jsonl); - is stdin",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write to FILE (.jsonl or .npy) instead of stdout"
    )
    parser.add_argument(
        "--format",
        choices=("jsonl", "npy"),
        help="output format (default: by the suffix of --output, else jsonl)",
    )
    parser.add_argument(
        "--field",
        default="text",
        metavar="NAME",
        help="key of the text in .jsonl input (default: text)",
    )
    parser.add_argument(
        "--input-type",
        choices=("query", "document"),
        help="state the intent, so that the model's prefix for it is applied (default: none)",
    )
    parser.add_argument(
        "--dimensions", type=int, metavar="K", help="shorten the vectors to K dimensions"
    )
    parser.add_argument(
        "--skip-invalid",
        action="store_true",
        help="skip lines that cannot be embedded (and report them) instead of stopping",
    )


def _add_bench(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--texts",
        default="short",
        metavar="SET",
        help="short, passages or mixed (built in), or a .txt or .jsonl file (default: short)",
    )
    add(
        "--concurrency",
        default="1,8,64",
        metavar="N,…",
        help="clients at a time, one measurement each (default: 1,8,64)",
    )
    add("--batch", default="1", metavar="N", help="texts a request (default: 1)")
    add(
        "--duration",
        default="5s",
        metavar="TIME",
        help="time of each measurement, after a warm-up that is not counted (default: 5s)",
    )
    add(
        "--url",
        metavar="URL",
        help="measure this server, such as http://127.0.0.1:8121/v1, instead of this process",
    )
    add(
        "--bench-model",
        metavar="NAME",
        help="model to name in the requests (default: the first that URL/models lists)",
    )
    add(
        "--encoding",
        choices=("float", "base64"),
        default="float",
        help="encoding_format of the requests (default: float)",
    )
    add(
        "--header",
        action="append",
        default=[],
        metavar="LINE",
        help="send this header, such as 'Authorization: Bearer …' (may be repeated)",
    )
    add("--plot", type=Path, metavar="FILE", help="write a chart: .html, or .png with matplotlib")
    add("--json", type=Path, metavar="FILE", help="write every figure as JSON")
