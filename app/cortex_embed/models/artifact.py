"""One artifact directory: graphs, their weights, `tokenizer.json`, and the `manifest.json` that
says what they are.

It exists so that a damaged or foreign model is refused with the file's name before a runtime
sees it. It must never search for directories (`store` does) nor repair what it finds.
"""

from __future__ import annotations

import json
from hashlib import sha256
from stat import S_ISREG
from typing import TYPE_CHECKING, Any

import msgspec

from cortex_embed.domain import stored_as
from cortex_embed.errors import ModelFileError
from cortex_embed.models.catalogue import spec_from
from cortex_embed.models.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cortex_embed.domain import ModelSpec

MANIFEST = "manifest.json"
GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
SCHEMA = 2
PRECISIONS = ("fp32", "int8")
"""What graphs are stored in."""
OUTPUTS = ("text", "tokens")
_CHUNK = 2 * 2**20
_WAY_OUT = (
    "`cortex-embed models pull NAME` mends what was downloaded. Else make the artifact directory "
    "again (`nox -s serve` in a source checkout), or point --model-dir at an intact one."
)


class FileFact(msgspec.Struct, frozen=True):
    """What a file must be: `size` in bytes, and its SHA-256 in lower-case hex."""

    size: int
    sha256: str


class Graph(msgspec.Struct, frozen=True):
    """One ONNX graph of the model. `data` is the file of its weights.

    `output` is `text` (one vector a text) or `tokens` (one state a token).
    `is_own` says that our exporter made it; else it is run as its authors published it, and its
    opset is not known (1). `alone` says that its vectors depend on their batch.
    """

    file: str
    data: str
    precision: str
    opset: int
    output: str = "text"
    is_own: bool = True
    alone: bool = False


class Artifact(msgspec.Struct, frozen=True):
    """A model on this disk. `files` are the runtime's; `sources` are what they were made from."""

    directory: Path
    spec: ModelSpec
    graphs: tuple[Graph, ...]
    files: dict[str, FileFact]
    sources: dict[str, str]
    manifest: dict[str, Any]
    """Everything the manifest says, for clients (`GET /model_info`)."""

    @property
    def graph(self) -> Path:
        """The float32 graph for current runtimes."""
        return self.directory / GRAPH

    @property
    def precisions(self) -> tuple[str, ...]:
        """What its graphs are stored in."""
        return tuple(p for p in PRECISIONS if self._graphs(p))

    @property
    def is_own(self) -> bool:
        """Whether our exporter made its graphs."""
        return all(g.is_own for g in self.graphs)

    @property
    def alone(self) -> bool:
        """Whether its texts have to be computed one by one."""
        return any(g.alone for g in self.graphs)

    def graph_for(self, precision: str, newest_opset: int | None = None) -> Path:
        """The pooling graph of `precision` with the newest opset that the runtime reads; None is
        for a reader of all of them.

        Raises ModelFileError when there is none.
        """
        fitting = self._graphs(precision, newest_opset=newest_opset)
        if not fitting:
            readable = "" if newest_opset is None else f" for opset {newest_opset} or older"
            raise ModelFileError(f"{self.directory} has no {precision} graph{readable}. {_WAY_OUT}")
        return self.directory / max(fitting, key=lambda g: g.opset).file

    def token_graph_for(self, precision: str, newest_opset: int | None = None) -> Path | None:
        """The same of the graphs of token states; None in an artifact that was made without."""
        fitting = self._graphs(precision, output="tokens", newest_opset=newest_opset)
        return self.directory / max(fitting, key=lambda g: g.opset).file if fitting else None

    def _graphs(
        self, precision: str, *, output: str = "text", newest_opset: int | None = None
    ) -> list[Graph]:
        return [
            g
            for g in self.graphs
            if (g.precision, g.output) == (stored_as(precision), output)
            and (newest_opset is None or g.opset <= newest_opset)
        ]

    def passed_gate(self, precision: str) -> bool:
        """Whether the export measured that `precision` keeps the model's quality."""
        gate = self.manifest.get("gates", {}).get(precision, {})
        return gate.get("passed") is True

    def facts(self, precision: str) -> dict[str, Any]:
        """What a client can use of the manifest, served in `precision`."""
        return self.manifest | {"precision": precision}

    @property
    def tokenizer(self) -> Path:
        return self.directory / TOKENIZER

    def verify(self, precision: str | None = None) -> None:
        """Compare size and SHA-256 of every file with the manifest, or of one precision's files.

        Reads every byte of them. Raises ModelFileError naming the file and both values.
        """
        unused = {
            name
            for g in self.graphs
            for name in (g.file, g.data)
            if precision is not None and g.precision != stored_as(precision)
        }
        for name, fact in self.files.items():
            if name not in unused:
                verify_file(self.directory / name, fact, way_out=_WAY_OUT)


def verify_file(path: Path, fact: FileFact, *, way_out: str) -> None:
    """Raise ModelFileError unless `path` is exactly what `fact` says."""
    try:
        status = path.stat()
        if not S_ISREG(status.st_mode):  # reading a pipe could wait for ever
            raise ModelFileError(f"{path} is not a regular file. {way_out}")
        size = status.st_size
        found = hash_file(path)
    except OSError as why:
        raise ModelFileError(f"{path} cannot be read: {reason(why)}. {way_out}") from None
    if (size, found) != (fact.size, fact.sha256):
        raise ModelFileError(
            f"{path} has {size:,} bytes and SHA-256 {found}, expected {fact.size:,} bytes and "
            f"SHA-256 {fact.sha256}: it is damaged or not this model's. {way_out}"
        )


def fact_of(path: Path) -> FileFact:
    """What `path` is now. Reads every byte of it. Raises OSError."""
    return FileFact(size=path.stat().st_size, sha256=hash_file(path))


def hash_file(path: Path) -> str:
    """SHA-256 of a file's content in lower-case hex. Raises OSError."""
    digest = sha256()
    # One buffer, and few rounds: each waits for the interpreter's lock, which a start is after.
    buffer = memoryview(bytearray(_CHUNK))
    with path.open("rb", buffering=0) as file:
        while size := file.readinto(buffer):
            digest.update(buffer[:size])
    return digest.hexdigest()


def reason(why: OSError) -> str:
    """The system's words for an error, without errno and path."""
    return why.strerror or str(why) or type(why).__name__


def holds_manifest(directory: Path) -> bool:
    """Whether to expect an artifact here. True if that cannot be seen: loading then says why."""
    try:
        return (directory / MANIFEST).is_file()
    except OSError:
        return True


def load_artifact(directory: Path) -> Artifact:
    """Read `manifest.json`; the other files are neither opened nor hashed.

    Raises ModelFileError naming the file, and the key if one is at fault.
    """
    path = directory / MANIFEST
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ModelFileError(
            f"{directory} is no artifact directory: it holds no {MANIFEST}. {_WAY_OUT}"
        ) from None
    except OSError as why:
        raise ModelFileError(f"{path} cannot be read: {reason(why)}. {_WAY_OUT}") from None
    except UnicodeDecodeError as why:
        raise ModelFileError(f"{path} is not UTF-8: {why.reason}. {_WAY_OUT}") from None
    except ValueError:  # a NUL or a lone surrogate, which no path can hold
        raise ModelFileError(f"{str(directory)!r} is not a path. {_WAY_OUT}") from None
    try:
        manifest = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as why:
        raise ModelFileError(f"{path} is not valid JSON: {why}. {_WAY_OUT}") from None
    return _from_manifest(directory, Table(manifest, str(path), way_out=_WAY_OUT))


def from_document(directory: Path, document: dict[str, Any]) -> Artifact:
    """The artifact that a manifest not yet written describes. Raises ModelFileError."""
    return _from_manifest(directory, Table(document, str(directory / MANIFEST), way_out=_WAY_OUT))


def _from_manifest(directory: Path, table: Table) -> Artifact:
    # First, since another schema explains every other surprise.
    schema = table.whole("schema", low=1)
    if schema != SCHEMA:
        raise ModelFileError(
            f"{table.where}: `schema` is {schema}, this version of cortex-embed reads {SCHEMA}. "
            + _WAY_OUT
        )
    graphs = _graphs(table)
    for key in ("layers", "hidden", "heads", "vocab_size", "intermediate"):
        table.whole(key, low=1)
    if all(graph.is_own for graph in graphs):
        table.whole("parameters", low=1)
    exporter = table.table("exporter")
    exporter.text("name")
    exporter.text("version")
    sources = table.table("sources")
    return Artifact(
        directory=directory,
        spec=spec_from(table),
        graphs=graphs,
        files=_files(table.table("files")),
        sources={name: sources.sha256(name) for name in sources.data},
        manifest=table.data,
    )


def _graphs(table: Table) -> tuple[Graph, ...]:
    files = table.table("files").data
    table.table("gates")
    graphs = []
    if not table.data.get("graphs"):
        raise ModelFileError(f"{table.where}: the key `graphs` is missing or empty. {_WAY_OUT}")
    for entry in table.tables("graphs"):
        graph = Graph(
            file=entry.text("file"),
            data=entry.text("data"),
            precision=entry.text("precision"),
            opset=entry.whole("opset", low=1),
            output=entry.choice("output", OUTPUTS) if "output" in entry.data else "text",
            is_own="source" not in entry.data or entry.choice("source", ("repository",)) == "",
            alone=entry.flag("alone") if "alone" in entry.data else False,
        )
        for name in (graph.file, graph.data):
            if name not in files:
                raise ModelFileError(f"{entry.where}: {name!r} is not among `files`. {_WAY_OUT}")
        graphs.append(graph)
    return tuple(graphs)


def _files(table: Table) -> dict[str, FileFact]:
    table.table(TOKENIZER)
    refuse_outside(table.data, table.where)
    facts = {}
    for name in table.data:
        entry = table.table(name)
        facts[name] = FileFact(size=entry.whole("size", low=1), sha256=entry.sha256("sha256"))
    return facts


def refuse_outside(names: Iterable[str], where: str) -> None:
    """A name with a separator could make `verify` read, and a loader open, any file."""
    for name in names:
        if not name or name in {".", ".."} or set(name) & set("/\\:\0"):
            raise ModelFileError(
                f"{where}: {name!r} is not a plain file name of the artifact directory. {_WAY_OUT}"
            )
