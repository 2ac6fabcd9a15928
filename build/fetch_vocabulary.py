"""Obtain OpenAI's vocabulary `cl100k_base`, packed as `cortex_embed.providers.cl100k` reads it.

LangChain sends its ids, so that a server which is to understand them must carry it. OpenAI
publishes the file with tiktoken (MIT licence, Copyright (c) 2022 OpenAI, Shantanu Jain):
https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken, whose SHA-256
`tiktoken_ext/openai_public.py` of tiktoken 0.14.0 states. It comes from a wheel that carries
it, since a package index is all that a build may need. It must never leave a file that does
not unpack to exactly that one.

    python build/fetch_vocabulary.py --out DIR [--plain DIR]
"""

from __future__ import annotations

import argparse
import base64
import sys
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import EmbedError, ModelFileError
from cortex_embed.models.catalogue import SourceFile, Wheel
from cortex_embed.providers import cl100k
from fetch_model import from_wheel, say, verify
from staging import exit_on_sigterm, staging

if TYPE_CHECKING:
    from collections.abc import Sequence

# tiktoken's own name for it in a cache directory: the SHA-1 of its address.
PLAIN = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"
SOURCE = SourceFile(
    path=PLAIN,
    size=1_681_126,
    sha256="223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    evidence=2,
    repo="",  # OpenAI's own storage, which is not asked
    revision="",
)
WHEEL = Wheel(
    name="llama-index-core",
    version="0.12.5",
    filename="llama_index_core-0.12.5-py3-none-any.whl",
    size=1_589_481,
    sha256="1fe6dd39b2dc5a945b4702d780a2f5962a553e187524a255429461dc92a664db",
    prefix="llama_index/core/_static/tiktoken_cache/",
)


def fetch(out: Path, *, source: SourceFile = SOURCE, wheel: Wheel = WHEEL) -> None:
    """Make `out` hold the packed vocabulary; what is intact is kept.

    Raises ModelFileError if it cannot be had or is not OpenAI's, OutputError if `out` cannot be
    written. Says on stdout what it does before it does it.
    """
    target = out / cl100k.FILE.name
    if is_intact(target, source):
        say(f"{cl100k.NAME}: {target} is there and verified.")
        return
    with staging(out) as part:
        from_wheel(
            cl100k.NAME, wheel, [source.path], part,
            otherwise="go without: token ids of other vocabularies are then refused",
        )  # fmt: skip
        verify(part / source.path, source, f"It was fetched from {wheel.filename}.")
        packed = part / target.name
        packed.write_bytes(cl100k.pack(tokens_of((part / source.path).read_bytes())))
        if not is_intact(packed, source):
            raise ModelFileError(f"{source.path} cannot be packed without loss.")
        out.mkdir(parents=True, exist_ok=True)
        packed.replace(target)
    say(f"Verified (SHA-256): {target}")


def is_intact(packed: Path, source: SourceFile = SOURCE) -> bool:
    """Whether `packed` unpacks to exactly the pinned file."""
    try:
        tokens = cl100k.unpack(packed.read_bytes())
    except (OSError, ValueError):
        return False
    return sha256(plain(tokens)).hexdigest() == source.sha256


def tokens_of(plain_file: bytes) -> list[bytes]:
    """Tokens in the order of their ids: each line is a token in base64 and its id."""
    return [base64.b64decode(line.split()[0]) for line in plain_file.splitlines()]


def plain(tokens: Sequence[bytes]) -> bytes:
    """The inverse of `tokens_of`."""
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for rank, token in enumerate(tokens))
    return b"".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Fetch OpenAI's vocabulary cl100k_base by pin.")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="directory to fill")
    parser.add_argument(
        "--plain", type=Path, metavar="DIR", help="write it for tiktoken too (TIKTOKEN_CACHE_DIR)"
    )
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        fetch(args.out)
        if args.plain:
            tokens = cl100k.unpack((args.out / cl100k.FILE.name).read_bytes())
            with staging(args.plain) as part:
                (part / PLAIN).write_bytes(plain(tokens))
                args.plain.mkdir(parents=True, exist_ok=True)
                (part / PLAIN).replace(args.plain / PLAIN)
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    except KeyboardInterrupt:
        print("\nInterrupted; nothing half-written was left.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
