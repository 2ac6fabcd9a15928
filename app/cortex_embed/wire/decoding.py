"""Bytes to typed structs, and decoder complaints to sentences a caller can act on.

msgspec says ``Expected `str`, got `int` - at `$.input[3]` ``; a caller reads `input[3]: got
a number; input must be …`. What a field must be is the `description` of its type, so the
error and the API page cannot disagree. This module must never know a dialect, and never
put more of a body into a message than the one value that is wrong.
"""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

import msgspec

from cortex_embed.errors import InvalidRequestError

T = TypeVar("T")

TokenId = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
"""Whether the vocabulary has it is the tokenizer's to say."""
BOM = b"\xef\xbb\xbf"
# Looking for the reason costs a second, slower parse: 15 ms per MiB, the GIL held.
_EXPLAINED_BYTES = 2**20
_SHOWN_CHARS = 60
_WORDS = {
    "str": "a string",
    "int": "a number",
    "float": "a number with a fraction",
    "bool": "a boolean",
    "null": "null",
    "object": "an object",
    "array": "a list",
}


@cache
def decoder_of(struct: type[T]) -> msgspec.json.Decoder[T]:
    """The decoder of `struct`, made when it is first wanted: a third of a millisecond each,
    which a start need not pay for formats that nobody may speak."""
    return msgspec.json.Decoder(struct)


def decode(
    decoder: msgspec.json.Decoder[T], body: bytes, *, example: str, what: str = "The body"
) -> T:
    """`body` as the decoder's type. `example` is a body that works, for the way out; `what`
    is the caller's word for it.

    A byte order mark is skipped (Windows PowerShell sends one), the last of duplicate keys
    wins, unknown keys are ignored. Raises InvalidRequestError.
    """
    if not body.strip():
        raise InvalidRequestError(f"{what} is empty; send JSON such as {example}.")
    try:
        return decoder.decode(body.removeprefix(BOM))
    except msgspec.ValidationError as why:
        raise _wrong_value(decoder.type, str(why), example, what) from None
    except RecursionError:
        raise InvalidRequestError(
            f"{what} is nested too deeply; send JSON such as {example}."
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as why:
        raise _broken(body, str(why), example, what) from None


def bounded(dimensions: int | None, field: str = "dimensions") -> int | None:
    """`dimensions`, unless it has thousands of digits: JSON sets no limit, messages need one.

    Which widths a model gives is the service's to say.
    """
    if dimensions is not None and abs(dimensions) >= 2**31:
        raise InvalidRequestError(
            f"{field}: number out of range; ask for at most the model's own dimensions.",
            param=field,
            code="invalid_dimensions",
        )
    return dimensions


def _wrong_value(struct: Any, complaint: str, example: str, what: str) -> InvalidRequestError:
    """Valid JSON of the wrong shape, told by the path of the field."""
    wrong, _, at = complaint.partition(" - at `$")
    path = at.removeprefix(".").removesuffix("`")
    missing = re.fullmatch(r"Object missing required field `(\w+)`", wrong)
    if missing and not path:
        field = missing[1]
        return InvalidRequestError(f"{field} is missing; send JSON such as {example}.", param=field)
    got = re.search(r"got `(\w+)`$", wrong)
    if not path:
        kind = _WORDS[got[1]] if got else "something else"
        return InvalidRequestError(f"{what} must be a JSON object such as {example}, not {kind}.")
    field = re.match(r"\w*", path)[0]  # type: ignore[index]  # matches the empty string too
    problem = f"got {_WORDS.get(got[1], got[1])}" if got else clip(_plain(wrong))
    return InvalidRequestError(
        f"{path}: {problem}; {field} must be {_description(struct, field)}.", param=path
    )


def _plain(what: str) -> str:
    """msgspec's other complaints, without its type names."""
    value = re.match(r"Invalid enum value (.*)", what, re.DOTALL)
    if value:
        return f"got {value[1]}"
    if what.startswith("Expected `int`") or "out of range" in what:
        return "number out of range"
    return what


def clip(text: str) -> str:
    """The beginning of a value, for a message that quotes it."""
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"


def _description(struct: Any, field: str) -> str:
    """What `field` must be, as its type's `msgspec.Meta` says. Only errors pay for this."""
    hint = get_type_hints(struct, include_extras=True).get(field)
    for extra in getattr(hint, "__metadata__", ()):
        if isinstance(extra, msgspec.Meta) and extra.description:
            return extra.description
    return "of another type"


def _broken(body: bytes, complaint: str, example: str, what: str) -> InvalidRequestError:
    """Not JSON at all. msgspec calls a lone surrogate "truncated" input, hence the second look."""
    way_out = f"Send JSON such as {example}."
    if len(body) > _EXPLAINED_BYTES:
        return InvalidRequestError(f"{what} is not valid JSON: {complaint}. {way_out}")
    try:
        text = body.removeprefix(BOM).decode("utf-8")
        document = json.loads(text, parse_constant=_refuse_constant)
    except UnicodeDecodeError as why:
        return InvalidRequestError(
            f"{what} is not UTF-8: byte 0x{why.object[why.start]:02x} at position "
            f"{why.start}. {way_out}"
        )
    except json.JSONDecodeError as why:
        return InvalidRequestError(
            f"{what} is not valid JSON: {why.msg} at line {why.lineno}, column {why.colno}. "
            f"{way_out}"
        )
    except (ValueError, RecursionError) as why:
        return InvalidRequestError(f"{what} is not valid JSON: {why}. {way_out}")
    where, code_point = _lone_surrogate(document)
    if code_point is None:
        return InvalidRequestError(f"{what} is not valid JSON: {complaint}. {way_out}")
    return InvalidRequestError(
        f"{where or 'A key'} contains a lone surrogate (U+{code_point:04X}), which is no "
        "character; remove it.",
        param=where,
        code="invalid_text",
    )


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON value")


def _lone_surrogate(document: Any) -> tuple[str | None, int | None]:
    """Path and code point of the first half of a surrogate pair; (None, …) for one in a key."""
    waiting: list[tuple[str, Any]] = [("", document)]
    while waiting:  # a loop, not recursion: callers choose the depth
        path, value = waiting.pop()
        if isinstance(value, str):
            found = re.search("[\ud800-\udfff]", value)
            if found:
                return path.removeprefix("."), ord(found[0])
        elif isinstance(value, dict):
            for key in value:
                if found := re.search("[\ud800-\udfff]", key):
                    return None, ord(found[0])
            waiting.extend((f"{path}.{key}", inner) for key, inner in reversed(value.items()))
        elif isinstance(value, list):
            numbered = list(enumerate(value))
            waiting.extend((f"{path}[{i}]", inner) for i, inner in reversed(numbered))
    return None, None
