"""The models that we know, read from `catalogue.toml`.

Pooling, prefixes, limits and hashes are data there, so that adding a model is no code. This
module must never look at the disk for model files (`store` does) nor at the network.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

import msgspec

from cortex_embed.domain import Golden, ModelSpec
from cortex_embed.errors import ModelFileError, UsageError
from cortex_embed.models.table import Table

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT_MODEL_ID = "bge-small-en-v1.5"
"""What a distribution that carries no model of its own means by "the model"."""

CONFIG = "config.json"
SOURCES = ("model.safetensors", "tokenizer.json", CONFIG)
"""What our exporter reads, in Hugging Face's layout."""
POOLINGS = ("cls", "mean", "last_token")
_SCHEMA = 1
_WAY_OUT = "The package is damaged: install it again."


class SourceFile(msgspec.Struct, frozen=True):
    """A file of a repository at a revision. `size` is in bytes, None where nobody states it.

    `sha256` is empty where nobody else states it: then the first download is trusted.
    """

    path: str
    size: int | None
    sha256: str
    evidence: int
    repo: str
    revision: str

    @property
    def name(self) -> str:
        """What it is called on disk, where all files of a model lie side by side."""
        return self.path.rpartition("/")[2]


class Wheel(msgspec.Struct, frozen=True):
    """A wheel on the Python package index that carries the source files under `prefix`."""

    name: str
    version: str
    filename: str
    size: int
    sha256: str
    prefix: str


class SumCheck(msgspec.Struct, frozen=True):
    """The sum of all dimensions of the L2-normalized vector of each text."""

    texts: tuple[str, ...]
    sums: tuple[float, ...]
    tolerance: float
    source: str
    weights: str


class CatalogueEntry(msgspec.Struct, frozen=True):
    """A model, where its files come from, and what others publish of its vectors.

    `onnx` names the repository's own graph first, then the files that belong beside it; empty
    for none. `alone` says that this graph's vectors depend on their batch, so that its texts
    are computed one by one. `unavailable` says why there is nothing to download, `terms` what
    has to be accepted, `remark` what a person should know; each may be empty. `parameters` is
    0 where it is not known.
    """

    spec: ModelSpec
    layers: int
    hidden: int
    parameters: int
    files: tuple[SourceFile, ...]
    onnx: tuple[str, ...]
    onnx_precision: str
    tokenizer: str
    alone: bool
    unavailable: str
    terms: str
    remark: str
    pypi: Wheel | None
    goldens: tuple[Golden, ...]
    sum_check: SumCheck | None

    @property
    def source_files(self) -> tuple[SourceFile, ...]:
        """What our exporter makes a graph from; empty where it cannot."""
        files = tuple(file for file in self.files if file.path in SOURCES)
        return files if len(files) == len(SOURCES) else ()

    @property
    def run_files(self) -> tuple[SourceFile, ...]:
        """What the repository's own graph needs; empty where it has none."""
        wanted = {*self.onnx, self.tokenizer, CONFIG}
        return tuple(file for file in self.files if file.path in wanted) if self.onnx else ()

    @property
    def is_pinned(self) -> bool:
        """Whether every file to download is known by its SHA-256 beforehand."""
        return bool(self.run_files) and all(file.sha256 for file in self.run_files)

    @property
    def download_bytes(self) -> int:
        """Size of the files that running the model needs, as far as it is stated."""
        return sum(file.size or 0 for file in self.run_files)

    @property
    def is_sized(self) -> bool:
        """Whether `download_bytes` counts the weights."""
        return all(file.size for file in self.run_files if file.path in self.onnx)


@cache
def catalogue() -> tuple[CatalogueEntry, ...]:
    """Every entry, in the file's order. Raises ModelFileError if the file is malformed."""
    from importlib.resources import files

    return parse(files("cortex_embed.models").joinpath("catalogue.toml").read_text("utf-8"))


def known(own: Path | None = None) -> tuple[CatalogueEntry, ...]:
    """Every entry of ours, then those of a person's `own` catalogue, a file of the same schema.

    Raises UsageError naming the file and the key at fault.
    """
    if own is None:
        return catalogue()
    way_out = "Correct it, or leave --catalogue out."
    try:
        more = parse(own.read_text("utf-8"), str(own), way_out=way_out)
        _refuse_shared_names((*catalogue(), *more), str(own), way_out)
    except OSError as why:
        raise UsageError(f"--catalogue: {own} cannot be read: {why.strerror}.") from None
    except UnicodeDecodeError as why:
        raise UsageError(f"--catalogue: {own} is not UTF-8: {why.reason}.") from None
    except ModelFileError as why:
        raise UsageError(f"--catalogue: {why.message}") from None
    return (*catalogue(), *more)


def find(name: str, own: Path | None = None) -> CatalogueEntry | None:
    """The entry that answers to an id, repository or alias; any letter case."""
    return next((entry for entry in known(own) if entry.spec.answers_to(name)), None)


def parse(
    toml: str, where: str = "catalogue.toml", *, way_out: str = _WAY_OUT
) -> tuple[CatalogueEntry, ...]:
    """Entries from the text of a catalogue. Raises ModelFileError naming the key at fault."""
    import tomllib

    try:
        root = Table(tomllib.loads(toml), where, way_out=way_out)
    except tomllib.TOMLDecodeError as why:
        raise ModelFileError(f"{where} is not valid TOML: {why}. {way_out}") from None
    if (schema := root.whole("schema", low=1)) != _SCHEMA:
        raise ModelFileError(
            f"{where} has schema {schema}, this version reads {_SCHEMA}. {way_out}"
        )
    sum_texts = root.table("sum_check") if "sum_check" in root.data else None
    entries = tuple(_entry(table, sum_texts) for table in root.tables("model"))
    _refuse_shared_names(entries, where, way_out)
    return entries


def spec_from(table: Table) -> ModelSpec:
    """The keys that a catalogue entry and a manifest share."""
    return ModelSpec(
        id=table.text("id"),
        repo=table.text("repo"),
        revision=table.text("revision"),
        family=table.text("family"),
        pooling=cast("Any", table.choice("pooling", POOLINGS)),
        normalize=table.flag("normalize"),
        dimensions=table.whole("dimensions", low=1),
        max_tokens=table.whole("max_tokens", low=1),
        query_prefix=table.text("query_prefix", empty=True),
        document_prefix=table.text("document_prefix", empty=True),
        licence=table.text("licence"),
        aliases=table.texts("aliases"),
        matryoshka=table.wholes("matryoshka"),
        layer_norm=table.flag("layer_norm") if "layer_norm" in table.data else False,
    )


def _entry(table: Table, sum_texts: Table | None) -> CatalogueEntry:
    def optional(key: str) -> str:
        return table.text(key) if key in table.data else ""

    spec = spec_from(table)
    entry = CatalogueEntry(
        spec=spec,
        layers=table.whole("layers", low=1),
        hidden=table.whole("hidden", low=1),
        parameters=table.whole("parameters", low=1) if "parameters" in table.data else 0,
        files=tuple(_file(item, spec) for item in table.tables("files")),
        onnx=table.texts("onnx"),
        onnx_precision=optional("onnx_precision") or "fp32",
        tokenizer=optional("tokenizer") or "tokenizer.json",
        alone=table.flag("alone") if "alone" in table.data else False,
        unavailable=optional("unavailable"),
        terms=optional("terms"),
        remark=optional("remark"),
        pypi=_wheel(table.table("pypi")) if "pypi" in table.data else None,
        goldens=tuple(_golden(item) for item in table.tables("golden")),
        sum_check=(
            _sums(table.table("sum_check"), sum_texts)
            if sum_texts is not None and "sum_check" in table.data
            else None
        ),
    )
    missing = {*entry.onnx, *((entry.tokenizer, CONFIG) if entry.onnx else ())} - {
        file.path for file in entry.files
    }
    if missing or not (entry.onnx or entry.unavailable):
        what = (
            f"`files` must hold {', '.join(sorted(missing))}"
            if missing
            else ("`onnx` must name a graph, or `unavailable` say why there is none")
        )
        raise ModelFileError(f"{table.where}: {what}. {table.way_out}")
    return entry


def _file(table: Table, spec: ModelSpec) -> SourceFile:
    # Who writes a catalogue of their own vouches for it themselves, if anyone does.
    ours = table.way_out == _WAY_OUT
    pinned = (ours or "sha256" in table.data) and table.text("sha256", empty=True) != ""
    return SourceFile(
        path=table.text("path"),
        size=(table.whole("size", low=0) if ours or "size" in table.data else 0) or None,
        sha256=table.sha256("sha256") if pinned else "",
        evidence=table.whole("evidence", low=2 if pinned else 0) if ours else 0,
        repo=table.text("repo") if "repo" in table.data else spec.repo,
        revision=table.text("revision") if "revision" in table.data else spec.revision,
    )


def _wheel(table: Table) -> Wheel:
    return Wheel(
        name=table.text("name"),
        version=table.text("version"),
        filename=table.text("filename"),
        size=table.whole("size", low=1),
        sha256=table.sha256("sha256"),
        prefix=table.text("prefix", empty=True),
    )


def _golden(table: Table) -> Golden:
    return Golden(
        text=table.text("text"),
        vector=table.numbers("first"),
        tolerance=table.number("tolerance"),
        source=table.text("source"),
        dimensions=table.whole("dimensions", low=1) if "dimensions" in table.data else None,
    )


def _sums(table: Table, texts: Table) -> SumCheck:
    check = SumCheck(
        texts=texts.texts("texts"),
        sums=table.numbers("sums"),
        tolerance=texts.number("tolerance"),
        source=texts.text("source"),
        weights=table.text("weights"),
    )
    if len(check.sums) != len(check.texts):
        raise ModelFileError(
            f"{table.where}: `sums` has {len(check.sums)} values for {len(check.texts)} texts. "
            + table.way_out
        )
    return check


def _refuse_shared_names(entries: tuple[CatalogueEntry, ...], where: str, way_out: str) -> None:
    """Two models under one name would make the answer depend on the file's order."""
    owners: dict[str, str] = {}
    for spec in (entry.spec for entry in entries):
        for name in {n.casefold() for n in (spec.id, spec.repo, *spec.aliases)}:
            if name in owners:
                raise ModelFileError(
                    f"{where}: {name!r} names both {owners[name]} and {spec.id}. {way_out}"
                )
            owners[name] = spec.id
