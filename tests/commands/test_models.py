from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from cortex_embed import cli

if TYPE_CHECKING:
    from cortex_embed.models.store import Artifact


def test_the_table_names_catalogue_and_installed(
    tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["models", "list", "--model-dir", str(tiny_mean.directory)])
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["id", "dimensions", "max_tokens", "pooling", "licence", "installed"]
    assert any(line.split()[:2] == ["bge-small-en-v1.5", "384"] for line in lines)
    (tiny,) = [line for line in lines if line.startswith(tiny_mean.spec.id)]
    assert tiny.endswith(str(tiny_mean.directory))


def test_json_for_programs(tiny_mean: Artifact, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["models", "list", "--json", "--model-dir", str(tiny_mean.directory)])
    table = {row["id"]: row for row in json.loads(capsys.readouterr().out)}
    assert table["bge-small-en-v1.5"]["pooling"] == "cls"
    assert table[tiny_mean.spec.id]["installed"] == str(tiny_mean.directory)
