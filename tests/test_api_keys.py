"""Where keys come from; that what is refused is named by its place, and never quoted."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from cortex_embed import api_keys
from cortex_embed.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "k3y-of-somebody"


def test_a_file_of_keys(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_bytes(
        b"\xef\xbb\xbf# of the team\r\n"
        + SECRET.encode()
        + b"\r\n\n  second  \n \t\n  # no key\nthird"
    )
    assert api_keys.from_file(file) == (SECRET, "second", "third")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no key"),
        (b"\n# only a comment\n  \n", "holds no key"),
        (f"{SECRET}\n{SECRET} two words\n".encode(), "line 2 of"),
        (f"{SECRET}\n\n{SECRET}ä".encode(), "line 3 of"),
        (SECRET.encode() + b"\0", "line 1 of"),
        (SECRET.encode() + b"\xff", "line 1 of"),
        (SECRET.encode().ljust(2**20 + 1), "is over 1048576 bytes"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "keys"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=words) as caught:
        api_keys.from_file(file)
    assert str(file) in caught.value.message
    assert SECRET not in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for place in (tmp_path / "none", tmp_path):
        with pytest.raises(UsageError, match="--api-key-file: cannot read"):
            api_keys.from_file(place)


def test_a_list_of_keys() -> None:
    assert api_keys.from_list(f" {SECRET} ,b,,c,") == (SECRET, "b", "c")


@pytest.mark.parametrize(
    ("listed", "words"),
    [("", "holds no key"), (" , ", "holds no key"), (f"a,{SECRET} b", "key 2"), ("ä", "key 1")],
)
def test_a_list_that_cannot_be_used(listed: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        api_keys.from_list(listed)
    assert "CORTEX_EMBED_API_KEYS" in caught.value.message
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "SOME is not set"), ("", "SOME is empty"), (f"{SECRET}\n", "the token in SOME has")],
)
def test_a_variable_that_cannot_be_used(value: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        api_keys.from_variable("SOME", value)
    assert SECRET not in caught.value.message


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
@pytest.mark.parametrize(
    ("mode", "open_to_others"), [(0o600, False), (0o400, False), (0o640, True), (0o604, True)]
)
def test_who_else_can_read_a_file(tmp_path: Path, mode: int, open_to_others: bool) -> None:
    file = tmp_path / "keys"
    file.touch()
    file.chmod(mode)
    assert api_keys.readable_by_others(file) is open_to_others
    assert not api_keys.readable_by_others(tmp_path / "none")
