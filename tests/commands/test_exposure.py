"""What a person is told who opens the server to others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cortex_embed.commands import exposure
from cortex_embed.config import Settings
from cortex_embed.server.sockets import Listener, bind


def warned(settings: Settings, host: str = "127.0.0.1", *, keyed: bool = False) -> list[str]:
    listener = bind(host, 0)
    try:
        return list(exposure.warnings(settings, listener, keyed=keyed))
    finally:
        listener.close()


def test_nothing_is_said_on_loopback() -> None:
    assert warned(Settings()) == []
    assert warned(Settings(cors_origins=("https://app.example",))) == []
    assert list(exposure.warnings(Settings(), Listener((), "x", 0, Path("/s")), keyed=False)) == []


def test_a_port_that_others_reach_without_a_key() -> None:
    (line,) = warned(Settings(), "0.0.0.0")  # noqa: S104 - that is the point
    assert "ANYONE who can reach http://0.0.0.0:" in line
    assert "--api-key-file" in line
    assert warned(Settings(), "0.0.0.0", keyed=True) == []  # noqa: S104


def test_every_web_page_without_a_key() -> None:
    (line,) = warned(Settings(cors_origins=("*",)))
    assert "ANY web page" in line
    assert warned(Settings(cors_origins=("*",)), keyed=True) == []


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_a_file_of_keys_that_others_can_read(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("a-key")
    file.chmod(0o644)
    (line,) = warned(Settings(api_key_file=file), keyed=True)
    assert f"chmod 600 {file}" in line
    assert "a-key" not in line
    file.chmod(0o600)
    assert warned(Settings(api_key_file=file), keyed=True) == []
