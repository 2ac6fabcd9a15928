"""`cortex-embed serve`: build the service, run the server. It must never do more."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cortex_embed.config import Settings


def run(settings: Settings) -> int:
    """Serve until a signal; the exit code. Raises StartupError before the port is bound."""
    from cortex_embed import logs
    from cortex_embed.server.lifecycle import Server
    from cortex_embed.service import build_service

    logs.configure(settings.log_level)
    service = build_service(settings)
    model = service.models()[0]
    reporter = logs.Reporter(model.spec, f"{model.origin}")
    return asyncio.run(Server(settings, service, reporter).run())
