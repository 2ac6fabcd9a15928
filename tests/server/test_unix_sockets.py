"""Socket files: private, replaced when dead, never taken from anyone who lives."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cortex_embed.errors import BindError, UsageError
from cortex_embed.server import unix_sockets
from cortex_embed.server.sockets import Listener
from cortex_embed.server.unix_sockets import bind_unix

if TYPE_CHECKING:
    from tests.server.conftest import Start

posix = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets")


def refused(path: Path) -> str:
    with pytest.raises(BindError) as caught:
        bind_unix(path)
    return caught.value.message


@posix
def test_it_is_private_and_goes_with_its_listener(tmp_path: Path) -> None:
    listener = bind_unix(tmp_path / "s")
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o600
    assert (listener.url, listener.uds) == ("http://localhost", tmp_path / "s")
    assert not listener.is_loopback
    listener.close()
    assert list(tmp_path.iterdir()) == []
    listener.close()  # twice is no error


@posix
def test_a_living_one_is_left_alone(tmp_path: Path) -> None:
    listener = bind_unix(tmp_path / "s")
    try:
        assert "is in use" in refused(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
    finally:
        listener.close()


@posix
def test_a_dead_one_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))
    listener = bind_unix(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
    listener.close()


@posix
def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("precious")
    assert "is no socket" in refused(tmp_path / "s")
    assert (tmp_path / "s").read_text() == "precious"
    (tmp_path / "link").symlink_to(tmp_path / "s")
    assert "is no socket" in refused(tmp_path / "link")


@posix
@pytest.mark.parametrize("name", ["none/s", "x" * 120])
def test_a_place_that_cannot_be(tmp_path: Path, name: str) -> None:
    assert "name another place with --uds" in refused(tmp_path / name)


@posix
def test_a_file_that_another_has_put_there_is_not_removed(tmp_path: Path) -> None:
    listener = bind_unix(tmp_path / "s")
    (tmp_path / "other").write_text("")
    (tmp_path / "other").replace(tmp_path / "s")
    listener.close()
    assert (tmp_path / "s").exists()


@posix
def test_of_many_starters_one_gets_the_stale_socket(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "s"))

    def start(_: int) -> Listener | None:
        try:
            return bind_unix(tmp_path / "s")
        except BindError:
            return None

    with ThreadPoolExecutor(10) as starters:
        listeners = [one for one in starters.map(start, range(10)) if one]
    assert len(listeners) == 1
    listeners[0].close()


def test_windows_is_told_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unix_sockets, "_PLATFORM", "win32")
    with pytest.raises(UsageError, match="--sidecar"):
        bind_unix(tmp_path / "s")


@posix
async def test_it_is_served_to_whoever_may_open_it(start: Start, tmp_path: Path) -> None:
    """Any Host is fine there: no web page reaches a socket file."""
    place = tmp_path / "s"
    async with start(uds=place) as running:
        reply, body = await running.post("/embed", {"texts": ["a"]}, headers={"Host": "any"})
        assert reply.status == 200
        assert len(json.loads(body)["embeddings"]) == 1
        running.server.stop()
        assert await asyncio.wait_for(running.task, 5) == 0
    assert place.name not in await asyncio.to_thread(os.listdir, tmp_path)
