"""`cortex-embed rpc` line by line: how a byte stream becomes calls, and a reply one line.

What a call embeds and how its result looks is `native`'s, so a result is byte for byte what
POST /embed answers. This module must never keep more of a line than its limit, and never
do input or output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import msgspec
import orjson
from msgspec import Meta

from cortex_embed.errors import EmbedError, InvalidRequestError, PayloadTooLargeError
from cortex_embed.wire import decoding, native
from cortex_embed.wire.encoding import safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortex_embed.wire.dialect import Asked

VERSION = 1
Id = int | str
Method = Literal["embed", "info", "ping", "cancel"]
METHODS: tuple[Method, ...] = get_args(Method)
_EXAMPLE = '{"id": 1, "method": "embed", "params": {"texts": ["Hello"]}}'
_LONGEST_ID = 256
# The id of a line that is no JSON, or too long to read, where the line begins with it.
_LEADING_ID = re.compile(rb'\s*\{\s*"id"\s*:\s*(-?\d{1,19}|"[^"\\\x00-\x1f]{0,250}")\s*[,}]')
_HEAD_BYTES = 512


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `asked` is there for `embed`, `target` for `cancel`."""

    id: Id
    method: Method
    asked: Asked | None = None
    target: Id | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A line that is no call. `id` is None where the line does not show one."""

    id: Id | None
    error: EmbedError


class _Line(msgspec.Struct):
    """A request line. The fields are read one by one, so that an error can carry the id."""

    id: msgspec.Raw = msgspec.Raw()
    method: msgspec.Raw = msgspec.Raw()
    params: msgspec.Raw = msgspec.Raw(b"{}")


class _CancelParams(msgspec.Struct):
    """`params` of `cancel`."""

    id: Annotated[int | str, Meta(description="the id of a request")]


_line = msgspec.json.Decoder(_Line)
_id: msgspec.json.Decoder[Id] = msgspec.json.Decoder(int | str)
_method = msgspec.json.Decoder(str)
_cancel = msgspec.json.Decoder(_CancelParams)


class Splitter:
    """Cuts a stream into lines of at most `limit` bytes. A longer one becomes a `Refusal`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[bytes | Refusal]:
        """The lines that `chunk` completes. Blank ones are left out."""
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            self._keep(chunk[start:end])
            yield from self.finish()
            start = end + 1
        self._keep(chunk[start:])

    def finish(self) -> Iterator[bytes | Refusal]:
        """What stands there without a line end."""
        line, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        if size > self._limit:
            yield Refusal(
                _leading_id(line),
                PayloadTooLargeError(
                    f"The line has {size} bytes; the limit is {self._limit}. Send fewer texts per "
                    "request, or raise --max-body-bytes."
                ),
            )
        elif line.strip():
            yield line

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size <= self._limit:
            if part:
                self._parts.append(part)
        elif len(self._parts) != 1 or len(self._parts[0]) != _HEAD_BYTES:
            self._parts = [b"".join([*self._parts, part])[:_HEAD_BYTES]]


def decode_line(line: bytes) -> Call | Refusal:
    """The call in `line`. Safe in any thread."""
    try:
        fields = decoding.decode(_line, line, example=_EXAMPLE, what="The line")
    except InvalidRequestError as why:
        return Refusal(_leading_id(line), _without_params(why))
    try:
        own_id = _decode_id(bytes(fields.id))
    except InvalidRequestError as why:
        return Refusal(None, why)
    try:
        return _call(own_id, bytes(fields.method), bytes(fields.params))
    except InvalidRequestError as why:
        return Refusal(own_id, why)


def _call(own_id: Id, raw_method: bytes, params: bytes) -> Call:
    method = _decode_method(raw_method)
    if method == "embed":
        return Call(own_id, method, asked=native.decode_request(params, served=""))
    if method == "cancel":
        given = decoding.decode(_cancel, params, example='{"id": 1}', what="params")
        return Call(own_id, method, target=given.id)
    return Call(own_id, method)


def _decode_id(raw: bytes) -> Id:
    if not raw:
        raise InvalidRequestError(f"id is missing; send JSON such as {_EXAMPLE}.", param="id")
    if len(raw) > _LONGEST_ID:
        raise InvalidRequestError(
            f"id has {len(raw)} bytes; the limit is {_LONGEST_ID}. Count requests from 1.",
            param="id",
        )
    try:
        return _id.decode(raw)
    except msgspec.MsgspecError:
        raise InvalidRequestError("id must be a string or a whole number.", param="id") from None


def _decode_method(raw: bytes) -> Method:
    try:
        name = _method.decode(raw) if raw else ""
    except msgspec.MsgspecError:
        name = ""
    for method in METHODS:
        if name == method:
            return method
    got = f"{name[:40]!r} is no method" if name else "method must be a string"
    raise InvalidRequestError(
        f"{got}; send one of {', '.join(METHODS)}.", param="method", code="unknown_method"
    )


def _leading_id(line: bytes) -> Id | None:
    found = _LEADING_ID.match(line)
    try:
        return _id.decode(found[1]) if found else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _without_params(error: InvalidRequestError) -> InvalidRequestError:
    """Paths start inside `params`, as in every other message about them."""
    if error.param is None or not error.param.startswith("params."):
        return error
    return InvalidRequestError(
        error.message.removeprefix("params."),
        param=error.param.removeprefix("params."),
        code=error.code,
    )


def encode_event(name: str, **facts: Any) -> bytes:
    """A line that answers nothing: `ready`, or `error` when the start failed."""
    return orjson.dumps({"event": name, "v": VERSION, **facts}) + b"\n"


def encode_failed_start(error: EmbedError) -> bytes:
    return encode_event(
        "error", code=error.code, message=safe(error.message), exit_code=error.exit_code
    )


def encode_result(own_id: Id, body: bytes) -> bytes:
    """`body` is the JSON of the result, without line ends."""
    return b'{"id":' + msgspec.json.encode(own_id) + b',"result":' + body + b"}\n"


def encode_error(own_id: Id | None, error: EmbedError) -> bytes:
    why = {
        "code": error.code,
        "message": safe(error.message),
        "param": safe(error.param) if error.param else None,
    }
    return b'{"id":' + msgspec.json.encode(own_id) + b',"error":' + orjson.dumps(why) + b"}\n"
