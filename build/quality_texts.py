"""Texts that an export's int8 is judged on: comments of the Python standard library.

Nothing is calibrated on them, and no setting was chosen by them: settings were compared on
docstrings and other documents. They must stay apart from `calibration_texts`.
"""

from __future__ import annotations

import random
import re
import sysconfig
import tokenize
from pathlib import Path

_SEED = 5
_LEAST_WORDS = 6


def quality_texts(count: int = 400) -> list[str]:
    """`count` texts, one comment block to several joined ones of a module.

    The same for the same Python and arguments. Raises RuntimeError where the library's sources
    are not there to read.
    """
    draw = random.Random(_SEED)  # noqa: S311 - repeatable, not secret
    modules = [blocks for blocks in map(_blocks, _sources()) if blocks]
    texts: set[str] = set()
    for _ in range(50 * count):
        blocks = draw.choice(modules)
        start = draw.randrange(len(blocks))
        length = 1 + int(draw.expovariate(1 / 3))
        texts.add("\n".join(blocks[start : start + length]))
        if len(texts) == count:
            return sorted(texts)
    raise RuntimeError("this Python has too little of its standard library's source to judge on")


def _sources() -> list[Path]:
    library = Path(sysconfig.get_path("stdlib"))
    found = [p for p in library.glob("*.py") if p.name[0] != "_"]
    for package in ("asyncio", "email", "http", "json", "logging", "multiprocessing", "xml"):
        found += library.glob(f"{package}/**/*.py")
    return sorted(found)


def _blocks(path: Path) -> list[str]:
    """Runs of comment lines that read like prose."""
    blocks: list[list[str]] = []
    last_line = -2
    try:
        with tokenize.open(path) as file:
            for token in tokenize.generate_tokens(file.readline):
                if token.type != tokenize.COMMENT:
                    continue
                if token.start[0] != last_line + 1:
                    blocks.append([])
                blocks[-1].append(token.string.lstrip("#").strip())
                last_line = token.start[0]
    except (OSError, SyntaxError, tokenize.TokenError):
        return []
    joined = (re.sub(r"\s+", " ", " ".join(lines)).strip() for lines in blocks)
    return [b for b in joined if _is_prose(b)]


def _is_prose(block: str) -> bool:
    letters = sum(c.isalpha() or c == " " for c in block)
    return len(block.split()) >= _LEAST_WORDS and letters > 0.8 * len(block)
