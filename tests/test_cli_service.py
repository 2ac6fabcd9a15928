"""The words of `cortex-embed service`; `tests/commands/test_service.py` has what they do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cortex_embed import cli


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (["install", "--port", "9000", "--system"], "install"),
        (["print", "--format", "launchd", "--model", "bge-m3"], "print"),
        (["uninstall", "--system"], "uninstall"),
        (["status"], "status"),
    ],
)
def test_every_action_is_understood(words: list[str], action: str) -> None:
    arguments = cli.build_parser(only="service").parse_args(["service", *words])
    assert (arguments.command, arguments.action) == ("service", action)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["start"],
        ["print", "--format", "upstart"],
        ["uninstall", "--port", "1"],
        ["install", "x"],
    ],
)
def test_what_is_not_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["service", *words])
    assert caught.value.code == 2
    assert "usage: cortex-embed" in capsys.readouterr().err


def test_no_other_command_pays_for_it_and_its_help_pays_for_no_manager() -> None:
    code = (
        "import sys; from cortex_embed import cli\n"
        "cli.build_parser(only='serve').parse_args(['serve'])\n"
        "assert 'cortex_embed.cli_service' not in sys.modules\n"
        "try: cli.main(['service', 'install', '--help'])\n"
        "except SystemExit: pass\n"
        "assert not [m for m in sys.modules if m.startswith('cortex_embed.managers')]\n"
        "assert not {'msgspec', 'plistlib', 'platformdirs', 'subprocess'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True, stdout=subprocess.DEVNULL)
