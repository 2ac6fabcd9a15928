"""Listening sockets of our own, bound before anything is loaded.

asyncio could bind for us, but then port 0 on a name with two addresses gives two ports, and
an error says less. It must never choose another address or port than the one asked for.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys

from cortex_embed.errors import BindError

# As many connections may wait for accept() as the kernel allows (it caps the number).
_BACKLOG = 4096
_UNAVAILABLE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


async def bind(host: str, port: int) -> list[socket.socket]:
    """Sockets listening on every address of `host`, all on one port.

    Port 0 lets the system choose. Raises BindError.
    """
    addresses = await _addresses(host, port)
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
            return sockets
    for opened in sockets:
        opened.close()
    raise _explained(host, port, refused)


def url(sockets: list[socket.socket], host: str) -> str:
    """Where a client on this machine reaches the server, in the words of `host`."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{sockets[0].getsockname()[1]}"


async def _addresses(
    host: str, port: int
) -> list[tuple[socket.AddressFamily, tuple[str, int, int, int]]]:
    """Addresses of `host`, without doubles, in the resolver's order."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
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
        listener.listen(_BACKLOG)
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
