"""The machine is named, and its user and host are not."""

from __future__ import annotations

import getpass
import json
import platform
from typing import TYPE_CHECKING

import pytest

from cortex_embed.commands.bench_machine import machine, processor

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_report_needs() -> None:
    found = machine()
    assert found["processor"]
    assert found["cores"] >= 1
    assert found["python"] == platform.python_version()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("processor : 0\nmodel name\t: Abacus 3000\n", "Abacus 3000"),
        ("processor : 0\nModel\t\t: Raspberry Pi 5\n", "Raspberry Pi 5"),
    ],
)
def test_the_processors_own_name(tmp_path: Path, content: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    assert processor(tmp_path / "cpuinfo") == name


def test_an_architecture_where_there_is_no_name(tmp_path: Path) -> None:
    assert processor(tmp_path / "missing")


def test_no_person_and_no_host_in_it() -> None:
    values = json.dumps(list(machine().values()))
    assert platform.node() not in values or len(platform.node()) < 3
    assert getpass.getuser() not in values
