"""The words of `cortex-embed models`; `tests/commands/test_models*.py` have what they do."""

from __future__ import annotations

import subprocess
import sys

import pytest

from cortex_embed import cli


@pytest.mark.parametrize(
    ("words", "action"),
    [
        (["list", "--json"], "list"),
        (["info", "bge-m3"], "info"),
        (["path", "bge-m3"], "path"),
        (["verify"], "verify"),
        (["verify", "bge-m3"], "verify"),
        (["pull", "bge-m3", "--accept-terms", "--stall-timeout", "5s"], "pull"),
        (["remove", "bge-m3"], "remove"),
        (["import", "some/where", "--id", "mine"], "import"),
    ],
)
def test_every_action_is_understood(words: list[str], action: str) -> None:
    arguments = cli.build_parser(only="models").parse_args(["models", *words])
    assert (arguments.command, arguments.action) == ("models", action)


@pytest.mark.parametrize(
    "words", [[], ["pull"], ["remove"], ["import"], ["fetch", "x"], ["list", "--accept-terms"]]
)
def test_what_is_not_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["models", *words])
    assert caught.value.code == 2
    assert "usage: cortex-embed" in capsys.readouterr().err


def test_no_other_command_pays_for_it() -> None:
    code = (
        "import sys; from cortex_embed import cli\n"
        "cli.build_parser(only='serve').parse_args(['serve'])\n"
        "assert 'cortex_embed.cli_models' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)
