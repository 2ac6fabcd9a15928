"""What a wire format must be able to do, and the nouns it speaks with the rest.

A dialect is a module (or, where one vendor has several formats, an object) that fits
`Dialect`. It decodes types and shapes; whether a text, a width or a model name is acceptable
is the service's to say. This module must never import a dialect.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from cortex_embed.domain import EmbedRequest, EmbedResult, Truncation
    from cortex_embed.errors import EmbedError
    from cortex_embed.vectors import Vectors

Encoding = Literal["float", "base64"]
Form = Literal["float", "int8", "uint8", "binary", "ubinary", "base64"]
"""A `vectors.Dtype`, or float32 in base64 where a dialect counts that among them (Cohere, Jina)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A decoded request: what to embed, and how the caller wants the reply written."""

    request: EmbedRequest
    encoding: Encoding = "float"
    """Numbers, or the bytes of their buffer in base64."""
    dtypes: tuple[Form, ...] = ()
    """What the numbers are; empty for float32 in the dialect's plain form. More than one only
    where the dialect has a word for each."""
    user: str | None = None
    """The caller's own tag for an end user. Carried to remote providers, never logged."""
    dialect: ErrorDialect | None = field(default=None, compare=False)
    """Whose words the request used, where the path is shared and it used somebody's own."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A decoded reply: `vectors` is float32 [n, k] in the order of the request's texts.

    `tokens` is None where the server did not say.
    """

    vectors: Vectors
    model: str | None = None
    tokens: int | None = None
    truncations: tuple[Truncation, ...] = ()


class ErrorDialect(Protocol):
    """The half of a dialect that says what went wrong: all that a route without texts needs."""

    @property
    def NAME(self) -> str:  # noqa: N802 - a module constant
        """Short name for logs and metrics."""

    @property
    def ERROR(self) -> type:  # noqa: N802 - a module constant
        """The msgspec type of an error's body, for the API page."""

    def status(self, error: EmbedError) -> int:
        """The HTTP status that clients of this dialect expect for `error`."""

    def encode_error(self, error: EmbedError) -> bytes:
        """The body of an error, in this dialect's own shape. Never fails."""


class ServerDialect(ErrorDialect, Protocol):
    """A published wire format as a server speaks it: all that a route with texts needs."""

    @property
    def LOAD_WAIT(self) -> float:  # noqa: N802 - a module constant
        """Seconds that clients of this dialect expect to wait for a model that is loading;
        0 where they know what to do with a 503."""

    def decode_request(self, body: bytes, *, served: str) -> Asked:
        """The request in `body`. `served` is a model id to name as the way out.

        Pure, and safe to call outside the event loop.
        Raises InvalidRequestError whose `param` is the field in the caller's spelling.
        """

    def encode_response(self, asked: Asked, result: EmbedResult) -> bytes:
        """The body of a 200. Safe to call outside the event loop."""


class ClientDialect(Protocol):
    """The half of a dialect that calls a server: all there is where the path is another's."""

    def encode_request(self, asked: Asked) -> bytes:
        """What a client sends. Raises ValueError for what this dialect has no word for."""

    def decode_response(self, body: bytes) -> Answer:
        """What a client gets back. Raises ValueError when `body` is not such a reply."""


class Dialect(ServerDialect, ClientDialect, Protocol):
    """One published wire format, as a server and as a client."""
