"""Texts to measure with: a file's, or made of a word list by a seeded generator.

The generator exists so that two people who run `bench` measure the same work without
downloading anything. It must never give other texts for the same arguments: only
`Random.random` is used, whose sequence Python promises to keep.
"""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from cortex_embed.commands import lines
from cortex_embed.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

SETS = {
    "short": "about 11 tokens, like a search query",
    "passages": "about 150 tokens, like a paragraph",
    "mixed": "5 to 400 tokens, most of them short, like real collections",
}
_SEED = 8121
_COUNT = 1024
_SENTENCE_WORDS = 12
_WORD_LIST = """
a about above account across action after again age air all also always an analysis and animal
answer any area around as at available away back bank base be because before begin below between
big board body book both bridge build business but by call can car care case cause century certain
change child choice city class clear close cold color common company compare condition contain
control cost country course create current data day deep degree describe detail develop different
difficult direct distance document door down draw drive each early earth east easy effect either
energy engine enough error even event every example express eye face fact fall family far fast
feature feel field figure file fill final find fine fire first follow food for force form free
friend from front full function garden general give glass goal gold good government grammar great
green ground group grow growth guide half hand happen hard have head health hear heat height help
high history hold home hope hour house how human hundred idea image important in include increase
industry inside interest iron island issue its job join journey just keep key kind know lake land
language large last late law lead learn leave left length less letter level library life light
like line list little long look low machine main make many map mark market material mean measure
member memory method middle might mile mind model money month moon more morning mountain move much
music must name nation nature near necessary need network never new night north not note nothing
number object ocean of off office often oil old on once only open operate order other our out over
own page paint paper part pass path pattern people perhaps period person picture place plan plant
play point policy position possible power present press price problem process produce product
program project protect prove provide public question quick quite rain range rate reach read ready
real reason record region report require research rest result return right rise river road rock
room round rule run safe same say scale school science sea search season second section see sense
sentence series service set several shape short should show side sign simple since single size
slow small social soil some sound source south space special speed stand star start state station
step still stone store story street strong structure student study subject such summer support
sure surface system table take teach team term test than that the their then theory there these
thing think third this those thousand three through time today together tool top total toward town
trade train travel tree true try turn two type under unit until up use usual value various very
view village voice walk wall want war warm watch water wave way weather week weight well west what
wheel when where which while white whole why wide will wind window winter with within without word
work world would write year yet young
"""
_WORDS = tuple(_WORD_LIST.split())


def texts_for(choice: str, *, max_chars: int) -> list[str]:
    """The texts of a built-in set, or of the file `choice`.

    Raises UsageError where it is neither, InputError for a line that cannot be embedded.
    """
    if choice in SETS:
        return _made(choice)
    if not Path(choice).is_file():
        raise UsageError(
            f"--texts: {choice!r} is no file, and no built-in set ({', '.join(SETS)})."
        )
    found = lines.source((), choice, "text", max_chars).read()
    texts = []
    for line in found:
        if isinstance(line, lines.Bad):
            raise InputError(f"--texts {choice}: {line.reason}")
        texts.append(line.text)
    if not texts:
        raise UsageError(f"--texts: {choice} is empty; it needs one text a line.")
    return texts


def batches(texts: Sequence[str], size: int) -> list[tuple[str, ...]]:
    """`texts` in order, `size` at a time; the last one is filled up from the beginning."""
    count = math.ceil(len(texts) / size)
    return [
        tuple(texts[(first + n) % len(texts)] for n in range(size))
        for first in range(0, count * size, size)
    ]


def _made(name: str) -> list[str]:
    random = Random(f"{_SEED}-{name}")  # noqa: S311 - reproducible is what it must be
    return [_text(random, _length(random, name)) for _ in range(_COUNT)]


def _length(random: Random, name: str) -> int:
    """Words of one text; a word is a token almost always, and a sentence adds its full stop."""
    if name == "short":
        return 6 + int(random.random() * 5)
    if name == "passages":
        return 115 + int(random.random() * 40)
    # Lognormal by Box and Muller: most texts are short, a few fill the model's window.
    angle, radius = random.random(), 1.0 - random.random()
    normal = math.sqrt(-2.0 * math.log(radius)) * math.cos(2.0 * math.pi * angle)
    return max(3, min(360, round(math.exp(math.log(48) + normal))))


def _text(random: Random, words: int) -> str:
    sentences = []
    while words > 0:
        count = min(words, 6 + int(random.random() * 2 * (_SENTENCE_WORDS - 6)))
        chosen = [_WORDS[int(random.random() * len(_WORDS))] for _ in range(count)]
        sentences.append(" ".join(chosen).capitalize() + ".")
        words -= count
    return " ".join(sentences)
