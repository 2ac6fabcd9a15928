"""The three text sets, from English that every Python brings along: its docstrings.

Seeded: the same Python gives the same texts. The int8 calibration has its own texts, which
these must never be mixed with, and passages fit into every peer's window (256 tokens), so that
a server that refuses or cuts longer texts does the same work as the others.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import re
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Count = Callable[[str], int]

SEED = 20_261
SETS = ("short", "passages", "mixed")
FULL = {"short": 1000, "passages": 300, "mixed": 400}
QUICK = {"short": 128, "passages": 24, "mixed": 32}
_WARM_UP = 24
_SKIPPED = {"test", "tests", "idlelib", "lib2to3", "site-packages", "turtledemo"}


@dataclass(frozen=True, slots=True)
class TextSet:
    """One set in a file (a JSON list), and its token counts after truncation."""

    name: str
    path: Path
    texts: list[str]
    lengths: list[int]
    sha256: str


def make(work: Path, tokenizer: Path, sizes: dict[str, int], max_tokens: int) -> dict[str, TextSet]:
    """The sets, and `warmup`, written under `work`."""
    from tokenizers import Tokenizer

    parsed = Tokenizer.from_file(str(tokenizer))
    parsed.no_padding()
    parsed.no_truncation()

    def count(text: str) -> int:
        return len(parsed.encode(text).ids)

    random = Random(SEED)  # noqa: S311 - reproducible is what it must be
    paragraphs = list(_paragraphs())
    random.shuffle(paragraphs)
    made = {
        "short": _short(paragraphs, sizes["short"], count),
        "passages": _passages(paragraphs, sizes["passages"], random, count, max_tokens),
        "mixed": _mixed(paragraphs, sizes["mixed"], random),
    }
    made["warmup"] = [*_short(paragraphs[::-1], _WARM_UP, count)]
    made["warmup"] += _passages(paragraphs[::-1], _WARM_UP, random, count, max_tokens)
    return {name: _write(work, name, texts, count, max_tokens) for name, texts in made.items()}


def _write(work: Path, name: str, texts: list[str], count: Count, max_tokens: int) -> TextSet:
    work.mkdir(parents=True, exist_ok=True)
    content = json.dumps(texts, ensure_ascii=False, indent=0)
    path = work / f"{name}.json"
    path.write_text(content, encoding="utf-8")
    lengths = [min(max_tokens, count(text)) for text in texts]
    digest = hashlib.sha256(content.encode()).hexdigest()
    return TextSet(name, path, texts, lengths, digest)


def _paragraphs() -> Iterator[str]:
    """Prose paragraphs of the standard library's docstrings, each once, in path order."""
    seen = set()
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if _SKIPPED & set(path.relative_to(library).parts):
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError, OSError):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            for block in (ast.get_docstring(node) or "").split("\n\n"):
                text = " ".join(block.split())
                if _is_prose(text) and text not in seen:
                    seen.add(text)
                    yield text


def _is_prose(text: str) -> bool:
    if len(text) < 24 or ">>>" in text or "  " in text:
        return False
    letters = sum(c.isalpha() or c == " " for c in text)
    return letters / len(text) > 0.88 and len(text.split()) >= 5


def _short(paragraphs: list[str], size: int, count: Count) -> list[str]:
    """First sentences of 7 to 15 tokens: the length of a search query."""
    found: list[str] = []
    seen = set()
    for paragraph in paragraphs:
        sentence = re.split(r"(?<=[.!?]) ", paragraph, maxsplit=1)[0]
        if sentence not in seen and len(sentence) < 100 and 7 <= count(sentence) <= 15:
            seen.add(sentence)
            found.append(sentence)
            if len(found) == size:
                return found
    raise ValueError(f"the standard library has only {len(found)} short sentences, not {size}")


def _passages(
    paragraphs: list[str], size: int, random: Random, count: Count, most: int
) -> list[str]:
    """Paragraphs joined to about 150 tokens, never over `most`."""
    found: list[str] = []
    words = _words(paragraphs, start=len(paragraphs) // 3)
    while len(found) < size:
        wanted = 84 + int(random.random() * 40)
        text = " ".join(next(words) for _ in range(wanted))
        if 100 <= count(text) <= most:
            found.append(text)
    return found


def _mixed(paragraphs: list[str], size: int, random: Random) -> list[str]:
    """Lognormal lengths, median 50 words: most short, a few over everyone's window."""
    words = _words(paragraphs, start=2 * len(paragraphs) // 3)
    found = []
    for _ in range(size):
        angle, radius = random.random(), 1.0 - random.random()
        normal = math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * angle)
        wanted = max(4, min(400, round(math.exp(math.log(50) + 0.9 * normal))))
        found.append(" ".join(next(words) for _ in range(wanted)))
    return found


def _words(paragraphs: list[str], start: int) -> Iterator[str]:
    while True:
        for paragraph in paragraphs[start:] + paragraphs[:start]:
            yield from paragraph.split()
