"""The README and CONTRIBUTING say what is so: every command, flag, route and path in them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import docs  # build/docs.py
from cortex_embed import cli

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / ".github" / "CONTRIBUTING.md").read_text(encoding="utf-8")
BOTH = README + CONTRIBUTING


def commands(program: str) -> list[str]:
    """Command lines of `program` in code blocks and in line."""
    shell = "\n".join(re.findall(r"```sh\n(.*?)```", BOTH, flags=re.DOTALL))
    lines = [line.split("#")[0].strip() for line in shell.splitlines()]
    inline = re.findall(rf"`({program}[^`]*)`", BOTH)
    return [line for line in lines if line.startswith(program)] + inline


def test_the_generated_blocks_are_current() -> None:
    assert docs.generated(README) == README, "run `nox -s docs`"


def test_a_missing_marker_is_an_error() -> None:
    with pytest.raises(ValueError, match="settings"):
        docs.generated("no markers")


@pytest.mark.parametrize("line", commands("cortex-embed"))
def test_every_cortex_embed_command_parses(line: str) -> None:
    words = shlex.split(line)[1:]
    if words == ["--version"]:
        return
    cli.build_parser().parse_args(cli.with_default_command(words))


def test_commands_were_found() -> None:
    assert len(commands("cortex-embed")) >= 6


def test_every_nox_session_named_exists() -> None:
    import ast

    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    sessions = {
        node.name.replace("_", "-")  # nox's own spelling is given by `name=` where they differ
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("session" in ast.unparse(d) for d in node.decorator_list)
    }
    named = set(re.findall(r"nox -s ([a-z-]+)", BOTH))
    assert named <= sessions
    assert {"serve", "tests"} <= named


def test_every_session_has_a_one_line_docstring() -> None:
    import ast

    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.decorator_list:
            text = ast.get_docstring(node)
            assert text, node.name
            assert "\n" not in text, node.name


@pytest.mark.parametrize(
    "path",
    sorted(set(re.findall(r"`((?:tests|build|server|models|providers|wire)/[\w./-]+)`", BOTH))),
)
def test_every_path_named_exists(path: str) -> None:
    places = [ROOT / path, ROOT / "app" / "cortex_embed" / path]
    assert any(p.exists() for p in places), path


@pytest.mark.parametrize("route", sorted(set(re.findall(r"`(?:GET|POST) (/[\w/{}]*)`", README))))
def test_every_route_named_exists(route: str) -> None:
    from cortex_embed.server.routes import ROUTES

    paths = {re.sub(r"\{(\w+)[^}]*\}", r"{\1}", row.path) for row in ROUTES}
    assert route in paths


def test_ci_run_calls_the_readmes_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for command in ('python3 -m pip install "nox[uv]"', "python3 -m nox -s tests"):
        assert command in README
        assert command.replace("install ", "install --quiet ") in script or command in script
