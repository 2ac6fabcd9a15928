"""Read an encoder's source files (Hugging Face's layout) and refuse what we cannot export.

It must never guess: a configuration that the graph does not reproduce exactly is an error
here, not a slightly different vector later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cortex_embed.errors import ModelFileError
from cortex_embed.models.artifact import reason
from cortex_embed.models.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.domain import ModelSpec

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
WAY_OUT = "Fetch the source files again, or choose another model."
_FLOATS = ("F64", "F32", "F16", "BF16")
_PREFIXES = ("bert.", "roberta.", "mpnet.")  # of checkpoints that were saved with a task's head


@dataclass(frozen=True, slots=True)
class BertConfig:
    """The numbers of an encoder, from `config.json`.

    `positions` counts the rows of the position table, or the places that rotations are made
    for; `types` is 0 where there are no token types. `padding_id` is set where positions are
    counted as RoBERTa does (see `roberta.py`), and `rotary_base` where queries and keys are
    rotated (see `nomic.py`).
    """

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocab_size: int
    positions: int
    types: int
    epsilon: float
    padding_id: int | None = None
    rotary_base: float = 0.0

    @property
    def places(self) -> int:
        """How many tokens a text may have. RoBERTa's table has rows before the first place."""
        return self.positions if self.padding_id is None else self.positions - self.padding_id - 1


class Weights:
    """The float tensors of `model.safetensors`, widened to float32."""

    def __init__(self, path: Path, tensors: dict[str, NDArray[np.float32]]) -> None:
        self.path = path
        self.tensors = tensors

    @property
    def parameters(self) -> int:
        """How many numbers there are, the pooler that no embedding uses included."""
        return sum(tensor.size for tensor in self.tensors.values())

    def take(self, name: str, *shape: int) -> NDArray[np.float32]:
        """The tensor `name`. Raises ModelFileError unless it is there with that shape."""
        if name not in self.tensors:
            raise ModelFileError(f"{self.path} has no tensor {name!r}. {WAY_OUT}")
        tensor = self.tensors[name]
        if tensor.shape != shape:
            raise ModelFileError(
                f"{self.path}: tensor {name!r} has shape {list(tensor.shape)}, "
                f"{CONFIG} says {list(shape)}. {WAY_OUT}"
            )
        return tensor


def read_config(path: Path, spec: ModelSpec) -> BertConfig:
    """A BERT encoder's numbers, checked against the spec.

    Raises ModelFileError for another architecture, activation or kind of position, and for a
    spec that the encoder cannot satisfy.
    """
    table = read_table(path)
    only(table, "model_type", "bert", default="bert")
    config = encoder_numbers(table, types=table.whole("type_vocab_size", low=1))
    check_spec(config, spec, path)
    return config


def encoder_numbers(table: Table, *, types: int, padding_id: int | None = None) -> BertConfig:
    """What the families share whose feed-forward has a GELU and whose positions are a table."""
    only(table, "hidden_act", "gelu", default="gelu")
    only(table, "position_embedding_type", "absolute", default="absolute")
    only(table, "is_decoder", False, default=False)
    return BertConfig(
        layers=table.whole("num_hidden_layers", low=1),
        hidden=table.whole("hidden_size", low=1),
        heads=table.whole("num_attention_heads", low=1),
        intermediate=table.whole("intermediate_size", low=1),
        vocab_size=table.whole("vocab_size", low=1),
        positions=table.whole("max_position_embeddings", low=1),
        types=types,
        epsilon=table.number("layer_norm_eps"),
        padding_id=padding_id,
    )


def only(table: Table, key: str, supported: object, *, default: object) -> None:
    """Raise ModelFileError unless `key`, or its `default` where it is absent, is `supported`."""
    found = table.data.get(key, default)
    if found != supported:
        raise ModelFileError(
            f"{table.where}: `{key}` is {found!r}; only {supported!r} can be exported. {WAY_OUT}"
        )


def check_spec(config: BertConfig, spec: ModelSpec, path: Path) -> None:
    """Raise ModelFileError for a spec that the encoder cannot satisfy."""
    problems = {
        f"pooling is {spec.pooling!r}, only cls, mean and last_token can be exported": (
            spec.pooling not in {"cls", "mean", "last_token"}
        ),
        f"max_tokens is {spec.max_tokens}, over the {config.places} positions of {path}": (
            spec.max_tokens > config.places
        ),
        f"dimensions is {spec.dimensions}, but `hidden_size` in {path} is {config.hidden}": (
            spec.dimensions != config.hidden
        ),
        f"`hidden_size` {config.hidden} in {path} is no multiple of "
        f"`num_attention_heads` {config.heads}": config.hidden % config.heads != 0,
    }
    for problem, holds in problems.items():
        if holds:
            raise ModelFileError(f"Model {spec.id}: {problem}. {WAY_OUT}")


def read_weights(path: Path) -> Weights:
    """All float tensors as float32, by their names without a leading `bert.` or its like.

    F16 and BF16 widen exactly. Raises ModelFileError for a missing or damaged file, and for a
    value that is not finite.
    """
    import ml_dtypes  # noqa: F401 - teaches numpy the name bfloat16, which safetensors asks for
    import numpy as np
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                if file.get_slice(name).get_dtype() in _FLOATS:
                    prefix = next((p for p in _PREFIXES if name.startswith(p)), "")
                    short = name.removeprefix(prefix)
                    tensors[short] = np.ascontiguousarray(file.get_tensor(name), dtype=np.float32)
    except FileNotFoundError:
        raise ModelFileError(f"{path} is missing. {WAY_OUT}") from None
    except OSError as why:
        raise ModelFileError(f"{path} cannot be read: {reason(why)}. {WAY_OUT}") from None
    except SafetensorError as why:
        raise ModelFileError(f"{path} is no safetensors file: {why}. {WAY_OUT}") from None
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise ModelFileError(f"{path}: tensor {name!r} holds NaN or infinity. {WAY_OUT}")
    return Weights(path, tensors)


def read_tokenizer(path: Path, config: BertConfig) -> dict[str, Any]:
    """`tokenizer.json` without its own truncation and padding.

    A trap: MiniLM's truncates and pads at 128 tokens while the model's limit is 256. The
    server sets both from the spec. Raises ModelFileError if a token has no row in the
    embedding table.
    """
    table = read_table(path)
    ids = [token.whole("id", low=0) for token in table.tables("added_tokens")]
    largest = max([*ids, _largest_id(table.table("model"))])
    if not 0 <= largest < config.vocab_size:
        raise ModelFileError(
            f"{path}: the largest token id is {largest}, but {CONFIG} has a `vocab_size` of "
            f"{config.vocab_size}. {WAY_OUT}"
        )
    return {**table.data, "truncation": None, "padding": None}


def _largest_id(model: Table) -> int:
    """The largest id of a tokenizer's `model`; -1 where it has no tokens."""
    vocab = model.data.get("vocab")
    if isinstance(vocab, list):  # Unigram: pairs of a token and its score, in the order of ids
        return len(vocab) - 1
    ids = model.table("vocab")  # WordPiece, BPE and WordLevel: id by token
    return max((ids.whole(token, low=0) for token in ids.data), default=-1)


def read_table(path: Path) -> Table:
    """A JSON file that holds one table. Raises ModelFileError."""
    try:
        return Table(json.loads(path.read_text(encoding="utf-8")), str(path), way_out=WAY_OUT)
    except FileNotFoundError:
        raise ModelFileError(f"{path} is missing. {WAY_OUT}") from None
    except OSError as why:
        raise ModelFileError(f"{path} cannot be read: {reason(why)}. {WAY_OUT}") from None
    except (ValueError, RecursionError) as why:
        raise ModelFileError(f"{path} is not valid JSON: {why}. {WAY_OUT}") from None
