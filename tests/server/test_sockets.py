"""Addresses that can be listened on, and what is said about those that cannot."""

from __future__ import annotations

import asyncio
import socket

import pytest

from cortex_embed.errors import BindError
from cortex_embed.server.sockets import bind, url


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def refused(host: str, port: int) -> str:
    with pytest.raises(BindError) as caught:
        await bind(host, port)
    return caught.value.message


async def test_port_zero_tells_the_real_port() -> None:
    (listener,) = await bind("127.0.0.1", 0)
    with listener:
        host, port = listener.getsockname()
        assert port > 0
        assert url([listener], host) == f"http://127.0.0.1:{port}"
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        assert "is in use" in await refused(host, port)


async def test_a_name_is_bound_on_all_its_addresses_with_one_port() -> None:
    listeners = await bind("localhost", 0)
    try:
        ports = {listener.getsockname()[1] for listener in listeners}
        assert len(ports) == 1
        assert url(listeners, "localhost") == f"http://localhost:{ports.pop()}"
    finally:
        for listener in listeners:
            listener.close()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
async def test_ipv6() -> None:
    (listener,) = await bind("::1", 0)
    with listener:
        assert url([listener], "::1") == f"http://[::1]:{listener.getsockname()[1]}"


async def test_addresses_that_are_not_ours() -> None:
    assert "192.0.2.1 is not an address of this machine" in await refused("192.0.2.1", 0)
    for name in ("no-such-host.invalid", "x" * 70 + ".invalid", "256.1.1.1"):
        message = await refused(name, 0)
        assert "cannot find the address of" in message
        assert "--host 127.0.0.1" in message
