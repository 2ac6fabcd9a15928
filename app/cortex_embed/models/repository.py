"""A model's directory as its authors publish it (Hugging Face's layout), described as an artifact.

sentence-transformers' files say how tokens become a vector; where they do not, the person must,
in `cortex-embed.toml` beside the graph. It must never guess a pooling or a prefix: a wrong one
gives well-formed vectors of another space.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import asdict

from cortex_embed.domain import LATE_POSITIONS
from cortex_embed.errors import ModelFileError
from cortex_embed.models import artifact as artifacts
from cortex_embed.models.fingerprint import fingerprints
from cortex_embed.models.onnx_files import external_files
from cortex_embed.models.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from cortex_embed.domain import ModelSpec

DESCRIPTION = "cortex-embed.toml"
CONFIG = "config.json"
_READER = "sentence_bert_config.json"
GRAPHS = ("onnx/model.onnx", "model.onnx")
"""Where exporters put the float32 graph, in order of preference."""
_KEYS = frozenset(
    {"id", "repo", "revision", "licence", "aliases", "pooling", "normalize", "dimensions"}
    | {"max_tokens", "query_prefix", "document_prefix", "matryoshka", "onnx", "precision", "alone"}
    | {"layer_norm"}
)
_POOLING_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last_token"}
_OLDER_MODES = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean"}
"""Before sentence-transformers 6 each mode had a key of its own, `pooling_mode_` and its name."""
_PROMPTS = {"query_prefix": ("query",), "document_prefix": ("document", "passage", "corpus")}
"""What encode_query and encode_document look for, in this order."""
_MODULES = {"Transformer", "Pooling", "Normalize"}
_OTHER_NAMES = {
    "hidden": ("hidden_size", "d_model", "dim", "n_embd"),
    "layers": ("num_hidden_layers", "n_layers", "n_layer", "num_layers"),
    "heads": ("num_attention_heads", "n_heads", "n_head"),
    "intermediate": ("intermediate_size", "n_inner", "hidden_dim", "d_ff"),
    "vocab_size": ("vocab_size",),
    "positions": ("max_position_embeddings", "n_positions"),
}
_UNLIMITED = 10**6  # transformers writes 1e30 for "no limit"


class Description(msgspec.Struct, frozen=True):
    """A model that was not exported by us: `graph` is its ONNX file relative to the directory,
    `precision` what its weights are in, `alone` as in the catalogue."""

    spec: ModelSpec
    graph: str
    precision: str = "fp32"
    alone: bool = False


def describe(directory: Path, *, name: str | None = None) -> Description:
    """What the files in `directory` say of their model; `cortex-embed.toml` has the last word.

    Raises ModelFileError naming the file and key that is missing, or that cannot be honoured.
    """
    own = _own(directory)
    config = _json(directory, CONFIG)
    if config is None:
        raise ModelFileError(f"{directory} holds no {CONFIG}; it is no model's directory.")
    said: dict[str, Any] = {
        "id": (name or directory.resolve().name).casefold(),
        "repo": name or directory.resolve().name,
        "revision": "local",
        "licence": _licence(directory),
        "aliases": [],
        "normalize": True,
        "query_prefix": "",
        "document_prefix": "",
        "matryoshka": [],
        "dimensions": _number(config, "hidden"),
        "max_tokens": _max_tokens(directory, config),
        "family": str(config.get("model_type", "unknown")),
        **_sentence_transformers(directory, decided="pooling" in own),
        **own,
    }
    _refuse_unheard(directory, said)
    graph = said.get("onnx") or next((g for g in GRAPHS if (directory / g).is_file()), None)
    if graph is None or not (directory / graph).is_file():
        raise ModelFileError(
            f"{directory} holds no {' or '.join(GRAPHS) if graph is None else graph}. Export the "
            f"model to ONNX, or name the file as `onnx` in {directory / DESCRIPTION}."
        )
    table = Table(said, str(directory / DESCRIPTION), way_out="Say it there, or correct it.")
    return Description(
        spec=_spec(table),
        graph=graph,
        precision=table.text("precision") if "precision" in said else "fp32",
        alone=table.flag("alone") if "alone" in said else False,
    )


def _spec(table: Table) -> ModelSpec:
    from cortex_embed.models.catalogue import spec_from

    return spec_from(table)


def needed_files(directory: Path, description: Description) -> dict[str, Path]:
    """What running the model needs, by the name that it has where all files lie side by side.

    Raises ModelFileError naming the file that is missing.
    """
    graph = directory / description.graph
    beside = external_files(graph)
    artifacts.refuse_outside(beside, str(graph))
    tokenizers = (directory / artifacts.TOKENIZER, graph.parent / artifacts.TOKENIZER)
    files = {
        graph.name: graph,
        **{name: graph.parent / name for name in beside},
        artifacts.TOKENIZER: next((t for t in tokenizers if t.is_file()), tokenizers[0]),
        CONFIG: directory / CONFIG,
    }
    for path in files.values():
        if not path.is_file():
            raise ModelFileError(
                f"{path} is missing; the model cannot be run without it. "
                "(A tokenizer.json is made by the `tokenizers` library, as transformers saves it.)"
                if path.name == artifacts.TOKENIZER
                else f"{path} is missing; {graph} cannot be run without it."
            )
    return files


def open_directory(directory: Path) -> artifacts.Artifact:
    """A directory in Hugging Face's layout as an artifact, without writing into it.

    Reads every byte that running it needs. Raises ModelFileError.
    """
    description = describe(directory)
    paths = needed_files(directory, description).values()
    try:
        facts = {path.relative_to(directory).as_posix(): artifacts.fact_of(path) for path in paths}
    except OSError as why:
        raise ModelFileError(
            f"{why.filename or directory} cannot be read: {artifacts.reason(why)}."
        ) from None
    if artifacts.TOKENIZER not in facts:
        raise ModelFileError(
            f"{directory} has its {artifacts.TOKENIZER} elsewhere. `cortex-embed models import "
            f"{directory}` puts its files in order."
        )
    graph = artifacts.Graph(
        file=description.graph,
        data=description.graph,
        precision=description.precision,
        opset=1,
        is_own=False,
        alone=description.alone,
    )
    document = manifest(directory, description, facts=facts)
    return artifacts.Artifact(directory, description.spec, (graph,), facts, {}, document)


def manifest(
    directory: Path,
    description: Description,
    *,
    sources: Mapping[str, str] | None = None,
    facts: Mapping[str, artifacts.FileFact] | None = None,
) -> dict[str, Any]:
    """The manifest of `directory`, where all files lie side by side.

    `facts` are its files', by path; without them all are hashed. `sources` are SHA-256 by
    repository path, for what is known of the origin.
    """
    config = _json(directory, CONFIG) or {}
    if facts is None:
        files = sorted(
            p for p in directory.iterdir() if p.is_file() and p.name != artifacts.MANIFEST
        )
        facts = {path.name: artifacts.fact_of(path) for path in files}
    graph = description.graph
    graph = graph if graph in facts else graph.rpartition("/")[2]
    geometry = {key: _number(config, key) for key in ("layers", "hidden", "heads", "vocab_size")}
    wide = next((config[k] for k in _OTHER_NAMES["intermediate"] if config.get(k)), None)
    spec = asdict(description.spec)
    return {
        "schema": artifacts.SCHEMA,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in spec.items()},
        **geometry,
        "intermediate": int(wide or 4 * geometry["hidden"]),
        "exporter": {"name": "the model's own repository", "version": description.spec.revision},
        "sources": dict(sources or {}),
        "graphs": [
            {
                "file": graph,
                "data": graph,
                "precision": description.precision,
                "opset": 1,
                "source": "repository",
                "alone": description.alone,
            }
        ],
        "gates": {},
        "notes": ["run as published: inputs and outputs are found out from the graph"],
        "files": {name: asdict(fact) for name, fact in sorted(facts.items())},
    }


def with_fingerprints(directory: Path, document: dict[str, Any]) -> dict[str, Any]:
    """`document`, the manifest of `directory`, with the identity of its vector space."""
    return document | {"fingerprints": fingerprints(artifacts.from_document(directory, document))}


def _own(directory: Path) -> dict[str, Any]:
    """What the person says in `cortex-embed.toml`; empty without it."""
    import tomllib

    path = directory / DESCRIPTION
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as why:
        raise ModelFileError(f"{path} cannot be read: {artifacts.reason(why)}.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as why:
        raise ModelFileError(f"{path} is not valid TOML: {why}.") from None
    unknown = sorted(set(said) - _KEYS)
    if unknown:
        raise ModelFileError(
            f"{path} has an unknown key {unknown[0]!r}. Known keys: {', '.join(sorted(_KEYS))}."
        )
    return said


def _json(directory: Path, name: str) -> dict[str, Any] | None:
    path = directory / name
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as why:
        raise ModelFileError(f"{path} cannot be read: {artifacts.reason(why)}.") from None
    except (ValueError, RecursionError) as why:
        raise ModelFileError(f"{path} is not valid JSON: {why}.") from None
    if not isinstance(document, dict):
        raise ModelFileError(f"{path} must hold a JSON object.")
    return document


def _sentence_transformers(directory: Path, *, decided: bool) -> dict[str, Any]:
    """Pooling, norm and prefixes, as sentence-transformers reads them from its files."""
    said: dict[str, Any] = {}
    modules = _modules(directory)
    strange = sorted(set(modules.values()) - _MODULES)
    if strange and not decided:
        raise ModelFileError(
            f"{directory / 'modules.json'}: the module {strange[0]} is not known here. If the "
            f"graph holds it, state `pooling` in {directory / DESCRIPTION}."
        )
    place = next((path for path, kind in modules.items() if kind == "Pooling"), "1_Pooling")
    pooling = _json(directory, f"{place}/{CONFIG}")
    if pooling is not None:
        said["pooling"] = _pooling(pooling, directory / place / CONFIG, decided=decided)
    elif not decided:
        raise ModelFileError(
            f"{directory} does not say how its token states become one vector: there is no "
            f"1_Pooling/{CONFIG}. State `pooling` (cls, mean or last_token) in "
            f"{directory / DESCRIPTION}, as the model's authors do."
        )
    if modules:
        said["normalize"] = "Normalize" in modules.values()
    prompts = (_json(directory, "config_sentence_transformers.json") or {}).get("prompts") or {}
    for key, names in _PROMPTS.items():
        found = next((prompts[name] for name in names if prompts.get(name)), None)
        if found is not None:
            said[key] = found
    return said


def _modules(directory: Path) -> dict[str, str]:
    """Kind of each sentence-transformers module by its path, from `modules.json`."""
    path = directory / "modules.json"
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        return {one["path"]: one["type"].rpartition(".")[2] for one in modules}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as why:
        raise ModelFileError(f"{path} cannot be read: {why}.") from None


def _pooling(config: dict[str, Any], path: Path, *, decided: bool) -> str:
    modes = _modes(config)
    if len(modes) == 1 and modes[0] in _POOLING_MODES:
        return _POOLING_MODES[modes[0]]
    if decided:
        return ""
    raise ModelFileError(
        f"{path} asks for {' and '.join(modes) or 'no pooling'}; only "
        f"{', '.join(_POOLING_MODES)} alone can be honoured."
    )


def _modes(config: dict[str, Any]) -> list[str]:
    said = config.get("pooling_mode")
    if said is not None:
        return [str(mode) for mode in said] if isinstance(said, list) else [str(said)]
    older = [key for key, on in config.items() if key.startswith("pooling_mode_") and on is True]
    return [_OLDER_MODES.get(key, key.removeprefix("pooling_mode_")) for key in older]


def _refuse_unheard(directory: Path, said: Mapping[str, Any]) -> None:
    """What changes vectors in sentence-transformers and is not done here. Raises ModelFileError."""
    place = next((p for p, kind in _modules(directory).items() if kind == "Pooling"), "1_Pooling")
    pooling = _json(directory, f"{place}/{CONFIG}") or {}
    if pooling.get("include_prompt") is False and (said["query_prefix"] or said["document_prefix"]):
        raise ModelFileError(
            f"{directory / place / CONFIG} leaves the prefix out of the pooling (include_prompt), "
            f'which cannot be honoured. To do without prefixes, state query_prefix = "" and '
            f'document_prefix = "" in {directory / DESCRIPTION}.'
        )
    reader = _json(directory, _READER) or {}
    if reader.get("do_lower_case") is True and not _lowers(
        (_json(directory, artifacts.TOKENIZER) or {}).get("normalizer")
    ):
        raise ModelFileError(
            f"{directory / _READER} wants texts in lower case (do_lower_case), and "
            f"{artifacts.TOKENIZER} leaves them as they are. Save the tokenizer with a Lowercase "
            "normalizer."
        )


def _lowers(normalizer: Any) -> bool:
    if not isinstance(normalizer, dict):
        return False
    if normalizer.get("type") == "Sequence":
        return any(map(_lowers, normalizer.get("normalizers") or ()))
    return normalizer.get("type") == "Lowercase" or normalizer.get("lowercase") is True


def _number(config: Mapping[str, Any], what: str) -> int:
    for key in _OTHER_NAMES[what]:
        value = config.get(key)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
    raise ModelFileError(f"{CONFIG} says nothing of {' or '.join(_OTHER_NAMES[what])}.")


def _max_tokens(directory: Path, config: dict[str, Any]) -> int:
    """The smallest of the limits that the files state; special tokens count."""
    limits = []
    positions = next((config[k] for k in _OTHER_NAMES["positions"] if config.get(k)), None)
    if isinstance(positions, int):
        offset = config.get("model_type") in LATE_POSITIONS
        limits.append(positions - (int(config.get("pad_token_id") or 1) + 1 if offset else 0))
    for name, key in (
        (_READER, "max_seq_length"),
        ("tokenizer_config.json", "model_max_length"),
    ):
        value = (_json(directory, name) or {}).get(key)
        if isinstance(value, int | float) and 0 < value < _UNLIMITED:
            limits.append(int(value))
    if not limits:
        raise ModelFileError(
            f"{directory} does not say how many tokens its model reads. State `max_tokens` in "
            f"{directory / DESCRIPTION}."
        )
    return min(limits)


def _licence(directory: Path) -> str:
    """The `license` of the model card's front matter; "unknown" without one."""
    try:
        card = (directory / "README.md").read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return "unknown"
    found = re.search(r"\A---\n.*?^license: *([\w.+-]+)", card, re.MULTILINE | re.DOTALL)
    return found[1] if found else "unknown"
