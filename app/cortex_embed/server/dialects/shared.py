"""Paths that two dialects share: the body's field tells whose words it uses.

`inputs` is text-embeddings-inference's, `texts` is ours. A body that tells neither gets our
answer. Nothing here may look further into a body than that.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from cortex_embed.server import handlers
from cortex_embed.server.route import Operation, Route
from cortex_embed.wire import native, tei

if TYPE_CHECKING:
    from cortex_embed.wire.dialect import ServerDialect


_BY_KIND: dict[str | None, ServerDialect] = {"embed": tei, "similarity": tei.SIMILARITY}


def _of_texts(body: bytes) -> ServerDialect:
    """Ours, or TEI's."""
    return tei if tei.kind_of(body) else native


def _of_either(body: bytes) -> ServerDialect:
    """The same, or TEI's similarities: Hugging Face's InferenceClient and Chroma post to the exact
    URL that they were given, the former for both."""
    return _BY_KIND.get(tei.kind_of(body), native)


_ERRORS = (400, 404, 408, 412, 413, 422, 424, 429, 503)

ROUTES = (
    Route(
        "POST",
        "/embed",
        native,
        partial(handlers.embed, _of_texts),
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
        partial(handlers.embed, _of_either),
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
