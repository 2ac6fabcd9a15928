"""What a person should know who opens the server to others than their own programs.

Nothing here is refused: who asks for it may have a reason (a container, a firewall). But it must
never go unsaid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortex_embed.api_keys import readable_by_others

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortex_embed.config import Settings
    from cortex_embed.server.sockets import Listener


def warnings(settings: Settings, listener: Listener, *, keyed: bool) -> Iterator[str]:
    """One line each. `keyed`: an API key is asked for."""
    remote = listener.uds is None and not listener.is_loopback
    ask = "ask for an API key with --api-key-file, CORTEX_EMBED_API_KEYS or --token-env"
    if remote and not keyed:
        yield (
            f"ANYONE who can reach {listener.url} can use this server: {ask}, or listen on "
            "127.0.0.1."
        )
    if "*" in (settings.cors_origins or ()) and not keyed:
        yield f"ANY web page that is opened can use this server (--cors-origins *): {ask}."
    file = settings.api_key_file
    if file is not None and readable_by_others(file):
        yield f"Other users of this machine can read the API keys in {file}: chmod 600 {file}"
