"""The peer of the HTTP layer's benchmark: an aiohttp server that answers one constant body.

It reads each request whole and parses nothing. What a server that parses, embeds and encodes
can reach on the same library is below it; how far below is what we measure.

    python bare_http.py PORT FILE
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp import web  # noqa: TID253 - this program is a server and nothing else


def main(port: int, body: bytes) -> None:
    async def constant(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    async def serve() -> None:
        app = web.Application(client_max_size=2**30)
        app.router.add_post("/{path:.*}", constant)
        app.router.add_get("/livez", constant)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    asyncio.run(serve())


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]).read_bytes())
