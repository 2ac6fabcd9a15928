"""Addresses that can be listened on, and what is said about those that cannot."""

from __future__ import annotations

import socket

import pytest

from cortex_embed.errors import BindError
from cortex_embed.server.sockets import bind


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def refused(host: str, port: int) -> str:
    with pytest.raises(BindError) as caught:
        bind(host, port)
    return caught.value.message


def test_port_zero_tells_the_real_port() -> None:
    listener = bind("127.0.0.1", 0)
    try:
        assert listener.port > 0
        assert listener.url == f"http://127.0.0.1:{listener.port}"
        assert listener.is_loopback
        socket.create_connection(("127.0.0.1", listener.port), timeout=5).close()
        assert "is in use" in refused("127.0.0.1", listener.port)
    finally:
        listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", listener.port), timeout=5)


def test_a_name_is_bound_on_all_its_addresses_with_one_port() -> None:
    listener = bind("localhost", 0)
    try:
        assert {one.getsockname()[1] for one in listener.sockets} == {listener.port}
        assert listener.url == f"http://localhost:{listener.port}"
        assert listener.is_loopback
    finally:
        listener.close()


def test_every_address_is_not_loopback() -> None:
    listener = bind("0.0.0.0", 0)  # noqa: S104 - that is the point
    try:
        assert not listener.is_loopback
    finally:
        listener.close()


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")
def test_ipv6() -> None:
    listener = bind("::1", 0)
    try:
        assert listener.url == f"http://[::1]:{listener.port}"
        assert listener.is_loopback
    finally:
        listener.close()


def test_addresses_that_are_not_ours() -> None:
    assert "192.0.2.1 is not an address of this machine" in refused("192.0.2.1", 0)
    for name in ("no-such-host.invalid", "x" * 70 + ".invalid", "256.1.1.1"):
        message = refused(name, 0)
        assert "cannot find the address of" in message
        assert "--host 127.0.0.1" in message
