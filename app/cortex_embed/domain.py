"""The data nouns that travel through the pipeline, and what a provider must do.

They exist so that `server`, `wire`, `service` and `providers` share words, not code. This
module must never import a wire format, a runtime, or numpy at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

InputType = Literal["query", "document"]
Truncate = Literal["end", "start", "none"]
Priority = Literal["interactive", "bulk"]


class OpenAIIds(tuple[int, ...]):
    """Token ids sent by OpenAI's own client libraries: they, and what is built on them (LangChain),
    tokenize with OpenAI's vocabulary or not at all."""

    __slots__ = ()


Text = str | tuple[int, ...]
"""One string to embed, or the token ids of one text: the model's, special tokens included, or
OpenAI's."""


SHORT_CHARS = 600
"""Up to so many characters in all, texts are tokenized where they arrive: that takes less time (up
to 0.2 ms) than handing them to a thread and waking up again, on two busy cores."""
LATE_POSITIONS = frozenset({"roberta", "xlm-roberta", "camembert", "mpnet"})
"""Families that number positions from padding_idx + 1 on (fairseq's habit)."""
_MADE_OF = {"int16": "fp32"}


def stored_as(precision: str) -> str:
    """The precision of the graphs that `precision` is served from: int16 is made when they are
    loaded, of fp32."""
    return _MADE_OF.get(precision, precision)


class Golden(msgspec.Struct, frozen=True):
    """A text and the leading values of the vector that its model must give.

    `vector` is L2-normalized; `tolerance` bounds the absolute difference of each value;
    `source` says who published it. `dimensions` is the width the vector was shortened to
    before it was normalized, None for the full one.
    """

    text: str
    vector: tuple[float, ...]
    tolerance: float
    source: str
    dimensions: int | None = None


class ModelSpec(msgspec.Struct, frozen=True):
    """What a model is: a catalogue entry, or an artifact's manifest read back.

    `max_tokens` counts special tokens. `dimensions` is the width of the full vector.
    """

    id: str
    repo: str
    revision: str
    family: str
    pooling: Literal["cls", "mean", "last_token"]
    normalize: bool
    dimensions: int
    max_tokens: int
    query_prefix: str
    document_prefix: str
    licence: str
    aliases: tuple[str, ...] = ()
    matryoshka: tuple[int, ...] = ()
    layer_norm: bool = False
    """Whether a vector is layer-normalized before it is shortened (nomic-embed-text)."""

    @property
    def has_late_positions(self) -> bool:
        """Whether the first token is not at position 0, but at padding_idx + 1."""
        return self.family in LATE_POSITIONS

    def prefix(self, input_type: InputType | None) -> str:
        """The text put before an input. None (intent not stated) never adds one."""
        if input_type is None:
            return ""
        return self.query_prefix if input_type == "query" else self.document_prefix

    def answers_to(self, name: str) -> bool:
        """Whether `name` means this model: id, repository or alias, any letter case."""
        wanted = name.casefold()
        if wanted.endswith(":latest"):  # Ollama clients add the tag by themselves
            wanted = wanted.removesuffix(":latest")
        return wanted in {n.casefold() for n in (self.id, self.repo, *self.aliases)}


class EmbedRequest(msgspec.Struct, frozen=True):
    """What a caller asked for, in no dialect.

    `model` None means the default one. `dimensions` None means the full width.
    `param` and `dimensions_param` are how the caller spells the fields that hold the texts
    and the dimensions, for error messages.
    """

    texts: tuple[Text, ...]
    model: str | None = None
    input_type: InputType | None = None
    dimensions: int | None = None
    truncate: Truncate | None = None
    normalize: bool = True
    priority: Priority | None = None
    param: str = "texts"
    dimensions_param: str = "dimensions"
    single: bool = False
    """Whether the caller sent one bare text rather than a list (for naming its field)."""
    names: tuple[str, ...] = ()
    """What the caller calls each text, where that is no path of a field: `line 17`."""

    def path(self, index: int) -> str:
        """The caller's name of text `index`: `input`, `input[3]`, or its own name."""
        if self.names:
            return self.names[index]
        return self.param if self.single else f"{self.param}[{index}]"


@dataclass(frozen=True, slots=True)
class Truncation:
    """Text `index` had `tokens` tokens (special ones included), of which `used` were embedded."""

    index: int
    tokens: int
    used: int


# A dataclass, which orjson writes by itself; the others are made in a fraction of the time.
@dataclass(frozen=True, slots=True)
class Token:
    """One token of a text. `start` and `stop` are character offsets of what it stands for;
    None for a special token, which stands for nothing of the text."""

    id: int
    text: str
    special: bool
    start: int | None = None
    stop: int | None = None


class Timings(msgspec.Struct, frozen=True):
    """Seconds spent in each stage of one request."""

    tokenize: float = 0.0
    queue: float = 0.0
    engine: float = 0.0


class Pooled(msgspec.Struct, frozen=True):
    """What a provider returns for n texts.

    `vectors` is float32 [n, dimensions]: full width, pooled, not yet normalized.
    `tokens` counts the tokens embedded, special ones included, after truncation.
    `read_as` names the vocabulary in which token ids were read that were not the model's own.
    """

    vectors: Vectors
    tokens: int
    truncations: tuple[Truncation, ...] = ()
    timings: Timings = msgspec.field(default_factory=Timings)
    read_as: str | None = None
    lengths: tuple[int, ...] = ()
    """Tokens of each text, where it was submitted."""


class TokenStates(msgspec.Struct, frozen=True):
    """What the encoder says of each token of n texts, neither pooled nor normalized.

    `states` holds one float32 [tokens of the text, dimensions] a text, special tokens included.
    """

    states: tuple[Vectors, ...]
    tokens: int
    truncations: tuple[Truncation, ...] = ()


class EmbedResult(msgspec.Struct, frozen=True):
    """The answer to an `EmbedRequest`: `vectors` is float32 [n, k], in the order of the texts."""

    vectors: Vectors
    tokens: int
    model: ModelSpec
    truncations: tuple[Truncation, ...] = ()
    timings: Timings = msgspec.field(default_factory=Timings)
    fingerprint: str = ""
    """Identity of the vector space; empty where the provider knows none."""
    read_as: str | None = None
    lengths: tuple[int, ...] = ()
    """See `Pooled` for both."""


class Submitted(Protocol):
    """Texts on their way through a provider."""

    def cancel(self) -> None:
        """Nobody waits for them any more; nobody will be told."""


class Provider(Protocol):
    """Who computes. One instance serves one model."""

    @property
    def spec(self) -> ModelSpec: ...

    def begin(self) -> None:
        """Start in threads what `load` waits for. Optional, and needs no event loop."""

    async def load(self) -> None:
        """Make ready to embed, once; only from verified files. Raises ModelFileError."""

    async def embed(
        self,
        texts: Sequence[Text],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        priority: Priority,
    ) -> Pooled:
        """Embed n >= 1 texts.

        Raises TextError for a text that cannot be embedded, TokensError for too many tokens in
        all, OverloadedError when the queue is full, EngineError when the runtime fails.
        """

    def submit(
        self,
        texts: Sequence[str],
        *,
        input_type: InputType | None,
        truncate: Truncate,
        told: Callable[[Pooled | Exception], object],
    ) -> Submitted | None:
        """As `embed` of n >= 1 short texts (SHORT_CHARS each), for callers without a task: `told`
        is called on the event loop, once, later, and must not raise; what it gets has `lengths`.

        None, and nothing done, where there is more to wait for than the engine, or to say of a text
        than its length. Raises what `embed` would before it computes.
        """

    async def tokenize(
        self, texts: Sequence[str], *, input_type: InputType | None, special: bool
    ) -> list[list[Token]]:
        """The tokens of each text behind its prefix, whole: nothing is truncated.

        With `special`, the special tokens that embedding adds are there too. Offsets count
        from the start of the prefix.
        """

    async def detokenize(self, ids: Sequence[Sequence[int]], *, skip_special: bool) -> list[str]:
        """The text of each list of token ids. Raises TextError for an id outside the vocabulary."""

    async def token_states(
        self, texts: Sequence[Text], *, input_type: InputType | None, truncate: Truncate
    ) -> TokenStates:
        """The state of every token of n >= 1 texts. Raises what `embed` raises, and
        UnsupportedError where this model cannot give them."""

    async def close(self) -> None:
        """Finish what is queued, then release the model."""
