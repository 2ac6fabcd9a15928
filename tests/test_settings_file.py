"""What a settings file may say, and what is said of one that cannot be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_embed import settings_file
from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = ("port", "host", "access_log", "share")


def test_values_come_back_as_raw_text(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('port = 9_000\nhost = "::1"\naccess_log = true\nshare = 0.5\n')
    assert settings_file.read(file, KNOWN) == {
        "port": "9000",
        "host": "::1",
        "access_log": "True",
        "share": "0.5",
    }


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"prot = 1", "unknown key 'prot'. Known keys: port, host"),
        (b"port = [1, 2]", "port in .* must be a single value"),
        (b"[port]\na = 1", "port in .* must be a single value"),
        (b"port = ", "is not valid TOML"),
        (b"port = 1 # \xff", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        settings_file.read(file, KNOWN)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--config: cannot read .*none\.toml: No such file"):
        settings_file.read(tmp_path / "none.toml", KNOWN)
