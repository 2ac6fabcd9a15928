"""Paths that two dialects share: the body's field tells whose words it uses.

`inputs` is text-embeddings-inference's, `texts` is ours. A body that tells neither gets our
answer. Nothing here may look further into a body than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cortex_embed.server import handlers
from cortex_embed.server.keys import DIALECT
from cortex_embed.server.route import Operation, Route
from cortex_embed.wire import native, tei

if TYPE_CHECKING:
    from aiohttp import web

    from cortex_embed.wire.dialect import ServerDialect


async def embed(request: web.Request) -> web.Response:
    """Texts in, vectors out: in our words, or in TEI's."""
    body = await handlers.read_body(request)
    kind = await handlers.decoded(tei.kind_of, body)
    return await _answer(tei if kind else native, request, body)


async def root(request: web.Request) -> web.Response:
    """The exact URL that they were given: Hugging Face's InferenceClient and Chroma post to it,
    the former for similarities too."""
    body = await handlers.read_body(request)
    dialects: dict[str | None, ServerDialect] = {"embed": tei, "similarity": tei.SIMILARITY}
    kind = await handlers.decoded(tei.kind_of, body)
    return await _answer(dialects.get(kind, native), request, body)


async def _answer(dialect: ServerDialect, request: web.Request, body: bytes) -> web.Response:
    request[DIALECT] = dialect
    return await handlers.answer(dialect, request, body)


_ERRORS = (400, 404, 408, 412, 413, 422, 424, 429, 503)

ROUTES = (
    Route(
        "POST",
        "/embed",
        native,
        embed,
        Operation(
            "Embed texts (ours, and text-embeddings-inference)",
            (native.EmbedBody, tei.TeiEmbedBody),
            native.EmbedReply | list[list[float]],
            {"texts": ["hello", "world"], "mode": "passage"},
            errors=_ERRORS,
            also=(tei,),
        ),
    ),
    Route(
        "POST",
        "/",
        native,
        root,
        Operation(
            "Embed or compare texts, by what the body holds (Hugging Face's InferenceClient)",
            (tei.TeiEmbedBody, tei.TeiSimilarityBody, native.EmbedBody),
            native.EmbedReply | list[list[float] | float],
            {"inputs": ["hello", "world"]},
            errors=_ERRORS,
            also=(tei,),
        ),
    ),
)
