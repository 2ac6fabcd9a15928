"""Prove parity where the graph is not ours: a repository's own ONNX file, its inputs found out.

The rows are `published_models`; `publish` makes each with the tools of its authors. Compared with
sentence-transformers, one text at a time: the engine on texts alone and in padded batches of
mixed lengths, then what a server answers with and without a prefix, once from the directory as
it was published and once from what `models import` made of it.

    python build/parity.py --introspected --work DIR [--only ID]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from cortex_embed.errors import SelfTestError
from cortex_embed.models.repository import DESCRIPTION, open_directory
from cortex_embed.vectors import l2_normalize
from parity_judge import Verdict, compare, in_batches, served, serving
from parity_texts import PLAIN, filler, texts_up_to
from publish import Published
from published_models import chosen

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.domain import InputType
    from cortex_embed.models.artifact import Artifact
    from parity_judge import Embed
    from published_models import Publication

    Vectors = NDArray[np.float32]

BATCH = 8
MAX_INVARIANCE = 1e-6
"""What README promises of a text alone and among others."""
_TOGETHER = 512
"""Tokens up to which texts are compared in batches; a server computes longer ones alone."""
_INPUT_TYPES: tuple[InputType | None, ...] = (None, "query", "document")


def introspected(work: Path, only: str | None) -> Iterator[list[Verdict]]:
    """The verdicts of one published model after the other; each one's files go after it."""
    for row in chosen(only):
        directory = work / "published" / row.id
        started = time.monotonic()
        try:
            yield list(examine(row, directory))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        print(f"{row.id}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)


def examine(row: Publication, directory: Path) -> Iterator[Verdict]:
    """Every comparison of one model."""
    published = Published(row, directory)
    if row.dense:  # only a person can know that the graph has them inside
        said = f'pooling = "{row.known.pooling}"\n'
        (directory / DESCRIPTION).write_text(said, encoding="utf-8")
    artifact = open_directory(directory)
    texts = compared_texts(row, artifact.tokenizer)
    long = [long_text(row)]
    few = texts if row.is_tiny else list(PLAIN)
    theirs = {kind: published.reference(few if kind else texts, kind) for kind in _INPUT_TYPES}
    theirs_long = published.reference(long)
    published.close()

    counts: dict[str, int] = {}
    direct = run_directly(artifact, counts)
    alone, mixed = in_batches(direct, texts, 1), in_batches(direct, texts, BATCH)
    span = f"{min(counts.values())}-{max(counts.values())}"
    count = len(texts)
    yield Verdict(row.id, "graph, alone", count, span, *compare(alone, theirs[None]))
    yield Verdict(row.id, f"graph, {BATCH} mixed", count, span, *compare(mixed, theirs[None]))
    yield Verdict(row.id, "mixed / alone", count, span, *compare(mixed, alone), MAX_INVARIANCE)
    counts.clear()
    difference = compare(direct(long), theirs_long)
    length = str(*counts.values())
    yield Verdict(row.id, "graph, long", 1, length, *difference)
    del direct
    for how, model, env in ways(row, directory):
        with serving(model, env=env) as url:
            for kind in _INPUT_TYPES:
                sent = few if kind else texts
                found = compare(served(url, kind)(sent), theirs[kind])
                yield Verdict(row.id, f"{how}, {kind or 'plain'}", len(sent), "", *found)
            found = compare(served(url)(long), theirs_long)
            yield Verdict(row.id, f"{how}, long", 1, length, *found)


def compared_texts(row: Publication, tokenizer: Path) -> list[str]:
    """Texts that may run together: for a tiny model every length that may be special."""
    limit = min(row.max_tokens, _TOGETHER)
    if row.is_tiny:
        return texts_up_to(tokenizer, limit)
    lengths = (1, 2, 3, 31, 32, 33, 127, 128, limit - 2, limit + 9)
    return [*PLAIN, *(filler(words, start=words) for words in lengths)]


def long_text(row: Publication) -> str:
    """As long as `longest` lets it be; over the limit where that is the model's own."""
    return filler(row.longest + row.longest // 4 if row.longest == row.max_tokens else row.longest)


def run_directly(artifact: Artifact, counts: dict[str, int]) -> Embed:
    """Normalized vectors of one padded batch, tokenized and run by what the program has for it.

    `counts` learns tokens by text.
    """
    from cortex_embed.providers.engine import newest_opset
    from cortex_embed.providers.repository_engine import RepositoryEngine
    from cortex_embed.providers.tokenizer import Tokenizer

    spec = artifact.spec
    tokenizer = Tokenizer(artifact.tokenizer, max_tokens=spec.max_tokens)
    engine = RepositoryEngine(
        artifact.graph_for("fp32", newest_opset()),
        dimensions=spec.dimensions,
        pooling=spec.pooling,
        threads=os.cpu_count() or 1,
    )

    def embed(texts: Sequence[str]) -> Vectors:
        encoded = tokenizer.encode(texts, prefix="", truncate="end")
        counts.update((text, len(e.ids)) for text, e in zip(texts, encoded, strict=True))
        return l2_normalize(engine.run([e.ids for e in encoded]))

    return embed


def ways(row: Publication, directory: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """How a person gets the model served: how, its name, and the environment.

    A real one is imported only: it would be hashed and loaded twice for nothing new.
    """
    home = directory.with_name(f"{directory.name}-home")
    env = {**os.environ, "XDG_DATA_HOME": str(home)}
    name = f"random-{row.id}"  # the catalogue's names are for the catalogue's bytes
    if row.is_tiny:
        yield "served", str(directory), env
    try:
        command = [sys.executable, "-m", "cortex_embed", "models", "import", str(directory)]
        done = subprocess.run(
            [*command, "--id", name], env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SelfTestError(f"models import {directory}: {done.stderr.strip()}")
        yield "imported", name, env
    finally:
        shutil.rmtree(home, ignore_errors=True)
