"""Listening sockets of our own, bound before anything is loaded.

asyncio could bind for us, but it would have to be imported first, port 0 on a name with two
addresses would give two ports, and an error would say less. It must never choose another
address or port than the one asked for, nor import anything that costs.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cortex_embed.errors import BindError

if TYPE_CHECKING:
    from pathlib import Path

# As many connections may wait for accept() as the kernel allows (it caps the number).
BACKLOG = 4096
_UNAVAILABLE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


@dataclass(frozen=True, slots=True)
class Listener:
    """Listening sockets, and how a client on this machine reaches them."""

    sockets: tuple[socket.socket, ...]
    host: str
    port: int
    uds: Path | None = None
    _inode: int = 0

    @property
    def url(self) -> str:
        """In the words of `host`; on a Unix socket, what stands in its place in a URL."""
        if self.uds is not None:
            return "http://localhost"
        shown = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{shown}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether it is a TCP port that only this machine reaches."""
        import ipaddress

        return self.uds is None and all(
            ipaddress.ip_address(listener.getsockname()[0].partition("%")[0]).is_loopback
            for listener in self.sockets
        )

    def close(self) -> None:
        """Listen no longer, and remove the socket file if it is still ours."""
        for listener in self.sockets:
            listener.close()
        if self.uds is not None:
            with suppress(OSError):
                if self.uds.lstat().st_ino == self._inode:
                    self.uds.unlink()


def bind(host: str, port: int) -> Listener:
    """Listen on every address of `host`, on one port. Port 0 lets the system choose.

    Waits for the resolver where `host` is a name. Raises BindError.
    """
    addresses = _addresses(host, port)
    sockets: list[socket.socket] = []
    refused: OSError | None = None
    for family, address in addresses:
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(_listen(family, (address[0], chosen, *address[2:])))
        except OSError as why:
            refused = why
            # A name such as localhost may have an IPv6 address that this machine has not.
            if why.errno in _UNAVAILABLE and len(addresses) > 1:
                continue
            break
    else:
        if sockets:
            return Listener(tuple(sockets), host, sockets[0].getsockname()[1])
    for opened in sockets:
        opened.close()
    raise _explained(host, port, refused)


def _addresses(
    host: str, port: int
) -> list[tuple[socket.AddressFamily, tuple[str, int, int, int]]]:
    """Addresses of `host`, without doubles, in the resolver's order."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as why:  # UnicodeError: a label that IDNA cannot encode
        raise BindError(f"cannot find the address of {host!r} ({why}); try --host 127.0.0.1") from (
            None
        )
    unique = dict.fromkeys((family, address) for family, _, _, _, address in found)
    return list(unique)  # type: ignore[arg-type]  # IPv4 addresses have two parts


def _listen(
    family: socket.AddressFamily, address: tuple[str, int, *tuple[int, ...]]
) -> socket.socket:
    """One listening socket. Raises OSError."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let two processes share the port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Or :: would take the IPv4 port as well, and 0.0.0.0 beside it would fail.
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        # Now, not when asyncio serves: with SO_REUSEADDR two binds succeed, two listens do not.
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _explained(host: str, port: int, why: OSError | None) -> BindError:
    number = why.errno if why else None
    if number == errno.EADDRINUSE:
        return BindError(
            f"port {port} on {host} is in use; choose another with --port, or --port 0"
        )
    if number == errno.EACCES:
        return BindError(
            f"port {port} on {host} needs more rights than this process has; "
            "choose one above 1023 with --port, or --port 0"
        )
    if number in _UNAVAILABLE:
        return BindError(
            f"{host} is not an address of this machine; try --host 127.0.0.1, or 0.0.0.0 for all"
        )
    reason = os.strerror(number) if number else "no address"
    return BindError(f"cannot listen on port {port} of {host}: {reason}; see --host and --port")
