"""Good bodies made bad: seeded, so that a failure can be had again by its number.

Three layers, mixed: the document (keys, types, sizes), its bytes (encodings, breaks), and the
frame around them (lengths, codings, headers).
"""

from __future__ import annotations

import copy
import gzip
import json
import random
import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_LONGEST = 300_000
_RAW = "@@raw@@"
_WORDS = (
    "query", "document", "passage", "search_query", "float", "base64", "int8", "ubinary", "END",
    "NONE", "none", "true", "5m", "-1", "MODEL", "hash", "hash:latest", "nope", "../../etc/passwd",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One bad request. `frame` is set where the head does not describe the body: then the server
    may just as well hang up, and the connection is of no more use."""

    number: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    frame: bool = False
    how: list[str] = field(default_factory=list)

    def wire(self, path: str) -> bytes:
        lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if not self.frame:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body

    def __str__(self) -> str:
        return f"#{self.number} ({', '.join(self.how)}) {self.headers} {self.body[:300]!r}"


# Over the server's limit, so that a 413 is among the answers; two large pieces in each other's
# place would else make gigabytes.
_MOST = 17 * 2**20


def mutant(seed: str, number: int, example: Any) -> Mutant:
    """Mutant `number` of `example`, a good body; the same for the same three."""
    rng = random.Random(f"{seed}:{number}")  # noqa: S311 - repeatable, not secret
    how: list[str] = []
    raw: list[str] = []
    document = copy.deepcopy(example)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        operation = rng.choice(_ON_DOCUMENTS)
        how.append(operation.__name__.strip("_"))
        document = operation(rng, document, raw)
    body = _encoded(rng, document, raw)[:_MOST]
    if rng.random() < 0.3:
        on_bytes = rng.choice(_ON_BYTES)
        how.append(on_bytes.__name__.strip("_"))
        body = on_bytes(rng, body)
    if rng.random() < 0.15:
        on_frame = rng.choice(_ON_FRAMES)
        how.append(on_frame.__name__.strip("_"))
        headers, body, frame = on_frame(rng, body)
        return Mutant(number, body, tuple(headers), frame, how)
    return Mutant(number, body, how=how)


def _encoded(rng: random.Random, document: Any, raw: list[str]) -> bytes:
    text = json.dumps(document, ensure_ascii=rng.random() < 0.5)
    for piece in raw:
        text = text.replace(f'"{_RAW}"', piece, 1)
    return text.encode("utf-8", "surrogatepass")


# Documents -------------------------------------------------------------------------------


def _slots(document: Any) -> list[tuple[Any, Any]]:
    """Every place in a document that a value can be put: container and key or index."""
    found: list[tuple[Any, Any]] = []
    if isinstance(document, dict):
        found += [(document, key) for key in document]
        found += [slot for inner in document.values() for slot in _slots(inner)]
    elif isinstance(document, list):
        found += [(document, at) for at in range(len(document))]
        found += [slot for inner in document for slot in _slots(inner)]
    return found


def _deep(rng: random.Random) -> str:
    depth = rng.choice((10, 500, 1100, 5000, 100_000))
    return "[" * depth + "]" * depth if rng.random() < 0.5 else '{"a":' * depth + "1" + "}" * depth


def _long(rng: random.Random) -> str:
    return rng.choice("a \n🙂é") * min(int(10 ** rng.uniform(0, 5.5)), _LONGEST)


def _bad_text(rng: random.Random) -> str:
    bad = rng.choice(("\0", "\ud800", "\udfff\ud800", "\uffff", "\x7f", "\u202e", "\ufeff"))
    return str(rng.choice(("", "hello ")) + bad + rng.choice(("", " world")))


def _many(rng: random.Random) -> list[Any]:
    return [rng.choice(("a", "", 1, [1, 2]))] * rng.choice((1, 33, 97, 1001, 2048, 2049, 20_000))


_EMPTY: tuple[Any, ...] = (None, True, False, [], {}, "", [[]], [{}], [None], {"": ""}, [[], []])
_WHOLE = (0, -1, 1, 384, 385, 2**31, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400)
_FLOATS = (0.5, -0.0, 1e308, 1e-320, float("nan"), float("inf"), -float("inf"))
_BROKEN = ("1e999", "-", "01", "0x10", "nul", "'a'", "1.", '"\\x"', '"\t"')
_ITEMS = ("a", 1, "", None, [1], {"text": "a"})
_VALUES: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: copy.deepcopy(rng.choice(_EMPTY)),
    lambda rng: rng.choice(_WHOLE) + rng.randrange(-2, 3),
    lambda rng: rng.choice(_FLOATS),
    lambda rng: rng.choice(_WORDS),
    lambda rng: [copy.deepcopy(rng.choice(_ITEMS)) for _ in range(rng.randrange(6))],
    lambda rng: [rng.randrange(-5, 200_000) for _ in range(rng.randrange(1, 50))],
    lambda rng: "".join(rng.choices(string.printable, k=rng.randrange(40))),
    _long,
    _bad_text,
    _many,
)
_RAW_VALUES: tuple[Callable[[random.Random], str], ...] = (lambda rng: rng.choice(_BROKEN), _deep)


def _value(rng: random.Random, raw: list[str]) -> Any:
    """Something that few decoders expect; text that no value stands for goes to `raw`."""
    at = rng.randrange(len(_VALUES) + len(_RAW_VALUES))
    if at < len(_VALUES):
        return _VALUES[at](rng)
    raw.append(_RAW_VALUES[at - len(_VALUES)](rng))
    return _RAW


def _replace(rng: random.Random, document: Any, raw: list[str]) -> Any:
    slots = _slots(document)
    if not slots or rng.random() < 0.03:
        return _value(rng, raw)
    container, key = rng.choice(slots)
    container[key] = _value(rng, raw)
    return document


def _drop(rng: random.Random, document: Any, raw: list[str]) -> Any:
    del raw
    if slots := _slots(document):
        container, key = rng.choice(slots)
        del container[key]
    return document


def _rename(rng: random.Random, document: Any, raw: list[str]) -> Any:
    del raw
    slots = [slot for slot in _slots(document) if isinstance(slot[0], dict)]
    if slots:
        container, key = rng.choice(slots)
        names = (key.upper(), key + "s", key[:-1], " " + key, "inputs", "texts", "input", "prompt")
        container[rng.choice(names)] = container.pop(key)
    return document


def _add(rng: random.Random, document: Any, raw: list[str]) -> Any:
    if isinstance(document, dict):
        names = (
            "dimensions", "truncate", "encoding_format", "mode", "input_type", "model", "stream",
            "options", "parameters", "prompt_name", "normalize", "embedding_types", "task", "x",
            "output_dtype", "keep_alive", "truncation_direction", "user", "ids", "images",
        )  # fmt: skip
        document[rng.choice(names)] = _value(rng, raw)
    return document


def _repeat(rng: random.Random, document: Any, raw: list[str]) -> Any:
    """The same key twice, which JSON allows and dicts cannot say."""
    if isinstance(document, dict) and document:
        key = rng.choice(list(document))
        again = json.dumps(_value(rng, [])).replace(f'"{_RAW}"', "7")
        raw.append(f"1, {json.dumps(key)}: {again}")
        document[f"zz{rng.randrange(9)}"] = _RAW
    return document


def _wrap(rng: random.Random, document: Any, raw: list[str]) -> Any:
    del raw
    wrappers: tuple[Callable[[Any], Any], ...] = (
        lambda value: [value], lambda value: {"inputs": value}, lambda value: [value, value],
        lambda value: {"text": value},
    )  # fmt: skip
    slots = _slots(document)
    if not slots or rng.random() < 0.2:
        return rng.choice(wrappers)(document)
    container, key = rng.choice(slots)
    container[key] = rng.choice(wrappers)(container[key])
    return document


def _swap(rng: random.Random, document: Any, raw: list[str]) -> Any:
    del raw
    slots = _slots(document)
    if len(slots) > 1:
        (one, a), (other, b) = rng.sample(slots, 2)
        values = copy.deepcopy((one[a], other[b]))
        one[a] = values[1]
        try:
            other[b] = values[0]
        except IndexError:  # the first assignment replaced what held the second
            return document
    return document


_ON_DOCUMENTS = (_replace, _replace, _replace, _drop, _rename, _add, _add, _repeat, _wrap, _swap)


# Bytes -----------------------------------------------------------------------------------


def _cut(rng: random.Random, body: bytes) -> bytes:
    return body[: rng.randrange(len(body) + 1)]


def _flip(rng: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(min(len(body), rng.randrange(1, 5))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _insert(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + rng.randbytes(rng.randrange(1, 20)) + body[at:]


def _double(rng: random.Random, body: bytes) -> bytes:
    start, end = sorted((rng.randrange(len(body) + 1), rng.randrange(len(body) + 1)))
    return body[:end] + body[start:end][:1000] + body[end:]


def _encode(rng: random.Random, body: bytes) -> bytes:
    text = body.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "cp037")), "replace")


def _prefix(rng: random.Random, body: bytes) -> bytes:
    return (
        rng.choice((b"\xef\xbb\xbf", b"\0", b"\x1e", b" " * 1000, b"\xff\xfe", b")]}',\n")) + body
    )


def _other(rng: random.Random, body: bytes) -> bytes:
    del body
    sizes = (0, 1, 10, 1000)
    return rng.choice((b"", b" ", b"null", b"a=b&c=d", rng.randbytes(rng.choice(sizes))))


_ON_BYTES = (_cut, _cut, _flip, _insert, _double, _encode, _prefix, _other)


# Frames ----------------------------------------------------------------------------------

Framed = tuple[list[tuple[str, str]], bytes, bool]
_JSON = ("Content-Type", "application/json")


def _type(rng: random.Random, body: bytes) -> Framed:
    types = ("", "text/plain", "application/json; charset=utf-16", "multipart/form-data", "x", "/")
    return [("Content-Type", rng.choice(types))], body, False


def _untyped(rng: random.Random, body: bytes) -> Framed:
    del rng
    return [], body, False


def _compressed(rng: random.Random, body: bytes) -> Framed:
    """gzip as it should be, cut short, of something else, or only said to be."""
    whole = gzip.compress(body)
    sent = rng.choice((whole, whole[: len(whole) // 2], body, whole + b"tail", b""))
    coding = rng.choice(("gzip", "gzip", "deflate", "br", "zstd", "nonsense", "gzip, gzip"))
    return [_JSON, ("Content-Encoding", coding)], sent, False


def _length(rng: random.Random, body: bytes) -> Framed:
    wrong = rng.choice(
        (str(len(body) // 2), str(len(body) + 10), "-1", "x", "", f"+{len(body)}", "1" * 30)
    )
    return [_JSON, ("Content-Length", wrong)], body, True


def _lengths(rng: random.Random, body: bytes) -> Framed:
    lengths = [("Content-Length", str(len(body))), ("Content-Length", str(rng.randrange(100)))]
    return [_JSON, *lengths], body, True


def _chunked(rng: random.Random, body: bytes) -> Framed:
    sizes = rng.choice((f"{len(body):x}", f"{len(body) + 1:x}", "zz", "-1", "ffffffffffffffff"))
    sent = f"{sizes}\r\n".encode() + body + rng.choice((b"\r\n0\r\n\r\n", b"\r\n0\r\n", b""))
    more = [("Content-Length", "5")] if rng.random() < 0.3 else []
    return [_JSON, ("Transfer-Encoding", "chunked"), *more], sent, True


def _head(rng: random.Random, body: bytes) -> Framed:
    odd = (
        ("X-Request-Id", "a" * 200), ("X-Request-Id", "\xff\xfe"), ("Authorization", "Bearer \xe9"),
        ("Expect", "100-continue"), ("Expect", "nonsense"), ("Accept", "image/png"),
        ("X-Long", "y" * rng.choice((4000, 9000, 40_000))), ("Origin", "null"),
        ("Host", "evil.example"), ("Cookie", "a=" + "b" * 100), ("Bad Name", "x"), ("X", "a\rb"),
        ("Upgrade", "websocket"), ("Connection", "close"), ("If-None-Match", "*"),
    )  # fmt: skip
    name, value = rng.choice(odd)
    length = ("Content-Length", str(len(body)))
    return [_JSON, (name, value), length], body, True


_ON_FRAMES = (_type, _untyped, _compressed, _compressed, _length, _lengths, _chunked, _head)
