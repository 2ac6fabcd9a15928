"""What a settings file may say, and what is said of one that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_embed import settings_file
from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = ("port", "host", "access_log", "share", "model")


def read(tmp_path: Path, content: bytes) -> dict[str, str | list[str]]:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    return settings_file.read(file, KNOWN, lists=["model"])


def test_values_come_back_as_raw_text(tmp_path: Path) -> None:
    content = b'port = 9_000\nhost = "::1"\naccess_log = true\nshare = 0.5\n'
    assert read(tmp_path, content) == {
        "port": "9000",
        "host": "::1",
        "access_log": "True",
        "share": "0.5",
    }


def test_lists_are_lists(tmp_path: Path) -> None:
    assert read(tmp_path, b'port = 1\nmodel = ["a", "b"]') == {"port": "1", "model": ["a", "b"]}
    assert read(tmp_path, b'model = "a"') == {"model": "a"}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"prot = 1", "unknown key 'prot'. Known keys: port, host"),
        (b"port = [1, 2]", "port in .* must be a single value"),
        (b"[port]\na = 1", "port in .* must be a single value"),
        (b"model = []", "model in .* must be a text or a list of texts"),
        (b"model = [1]", "model in .* must be a text or a list of texts"),
        (b"port = ", "is not valid TOML"),
        (b"port = 1 # \xff", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(tmp_path, content)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--config: cannot read .*none\.toml: No such file"):
        settings_file.read(tmp_path / "none.toml", KNOWN, lists=[])
