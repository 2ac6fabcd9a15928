from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cortex_embed import settings_file
from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = ("port", "model")


def read(tmp_path: Path, text: str) -> dict[str, str | list[str]]:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return settings_file.read(file, KNOWN, lists=["model"])


def test_values_are_raw_text_and_lists_are_lists(tmp_path: Path) -> None:
    assert read(tmp_path, 'port = 1\nmodel = ["a", "b"]') == {"port": "1", "model": ["a", "b"]}
    assert read(tmp_path, 'model = "a"') == {"model": "a"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("port = [1]", "port in .* must be a single value"),
        ("model = []", "model in .* must be a text or a list of texts"),
        ("model = [1]", "model in .* must be a text or a list of texts"),
        ("modle = 'a'", "unknown key 'modle'. Known keys: port, model"),
        ("port", "is not valid TOML"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read(tmp_path, text)
