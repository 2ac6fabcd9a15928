"""Turn a model's source files into an artifact directory: weights in, ONNX graphs out.

The graphs are built node by node (`families.py`, `bert_graph.py`), so that neither torch nor
transformers is needed and every operator is chosen on purpose: float32 and int8, each for
current runtimes and for onnxruntime 1.23 (macOS on Intel). It must never fetch anything, and
never leave an artifact directory that did not pass its own check.

    python build/export_onnx.py SOURCE_DIR --model ID --out DIR [--if-changed]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_graph import COMPATIBLE_OPSET, OPSET, build_graph
from bert_source import CONFIG, TOKENIZER, WEIGHTS, read_tokenizer, read_weights
from calibration import judge, observe
from cortex_embed import __version__
from cortex_embed.config import prepare_runtime_environment
from cortex_embed.errors import EmbedError, ModelFileError, UsageError
from cortex_embed.models import artifact as artifacts
from cortex_embed.models.catalogue import catalogue, find
from cortex_embed.models.fingerprint import fingerprints
from families import family_of
from graph_builder import WeightsFile, move_weights
from quantize import quantize
from staging import exit_on_sigterm, replace_directory, staging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bert_source import BertConfig
    from bert_weights import Encoder
    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.artifact import Artifact
    from recipe import Recipe

_STEMS = {"fp32": "model", "int8": "model.int8"}
_NOTES = [
    "tokenizer.json: the source's own truncation and padding are removed",
    "int8: per-row or calibrated scales, so a vector does not depend on its neighbours",
]


def export(
    source: Path, spec: ModelSpec, out: Path, *, precisions: Sequence[str] = artifacts.PRECISIONS
) -> Artifact:
    """Write the artifact directory `out` from the files in `source`; an older one is replaced.

    `precisions` holds fp32, and int8 where the time to calibrate is to be spent. The same
    sources give the same bytes. Raises ModelFileError for sources that are missing, damaged or
    of an unsupported kind, OutputError if `out` cannot be written.
    """
    family = family_of(spec)
    config = family.read_config(source / CONFIG, spec)
    tokenizer = read_tokenizer(source / TOKENIZER, config)
    weights = read_weights(source / WEIGHTS)
    bert = family.arrange(weights, config)
    with staging(out) as part:
        _write_json(part / artifacts.TOKENIZER, tokenizer, indent=None)
        manifest = _manifest(source, spec, config, weights.parameters)
        manifest["graphs"] = write_graphs(part, bert, config, spec)
        manifest["gates"] = {}
        if "int8" in precisions:
            limit = min(spec.max_tokens, 256)
            seen = observe(
                part / artifacts.TOKENIZER, bert, config, max_tokens=limit, blocks=family.blocks
            )
            manifest["graphs"] += write_graphs(part, bert, config, spec, quantize(bert, seen))
            newest = _newest(manifest["graphs"])
            manifest["gates"]["int8"] = judge(part, spec, newest=newest)
        manifest["files"] = _files(part)
        _write_json(part / artifacts.MANIFEST, manifest, indent=2)
        artifact = artifacts.load_artifact(part)
        check(artifact)
        manifest["fingerprints"] = fingerprints(artifact)
        _write_json(part / artifacts.MANIFEST, manifest, indent=2)
        replace_directory(part, out, marker=artifacts.MANIFEST)
    return artifacts.load_artifact(out)


def write_graphs(
    part: Path, bert: Encoder, config: BertConfig, spec: ModelSpec, recipe: Recipe | None = None
) -> list[dict[str, Any]]:
    """Write the graphs of a precision and the weights that they share; their manifest rows.

    For each runtime there are two: one that pools, one of token states. In this order, which
    leaves the weights file as it was before there were graphs of token states.
    """
    precision = "fp32" if recipe is None else "int8"
    stem = _STEMS[precision]
    data = WeightsFile(f"{stem}.onnx.data")
    rows = []
    for tokens, compatible in ((False, False), (False, True), (True, False), (True, True)):
        name = f"{stem}{'.tokens' * tokens}{'.compatible' * compatible}.onnx"
        model = build_graph(
            bert,
            config,
            spec.pooling,
            blocks=family_of(spec).blocks,
            recipe=recipe,
            compatible=compatible,
            tokens=tokens,
        )
        move_weights(model, data)
        (part / name).write_bytes(model.SerializeToString(deterministic=True))
        opset = COMPATIBLE_OPSET if compatible else OPSET
        row = {"file": name, "data": data.name, "precision": precision, "opset": opset}
        rows.append(row | ({"output": "tokens"} if tokens else {}))
    data.write(part)
    return rows


def _newest(graphs: list[dict[str, Any]]) -> dict[str, str]:
    """The pooling graph's file of each precision that this machine's runtime reads."""
    from cortex_embed.providers.engine import newest_opset

    readable = [g for g in graphs if g["opset"] <= newest_opset() and "output" not in g]
    return {g["precision"]: g["file"] for g in sorted(readable, key=lambda g: g["opset"])}


def check(artifact: Artifact) -> None:
    """Load every graph that this runtime reads and run one text. Raises ModelFileError."""
    prepare_runtime_environment()
    import numpy as np
    import onnx
    from tokenizers import Tokenizer

    from cortex_embed.providers.engine import Engine, newest_opset

    artifact.verify()
    ids = np.array(Tokenizer.from_file(str(artifact.tokenizer)).encode("hello world").ids)
    for graph in artifact.graphs:
        path = artifact.directory / graph.file
        try:
            onnx.checker.check_model(str(path))
            if graph.opset > newest_opset():
                continue
            vectors = Engine(path, dimensions=artifact.spec.dimensions).run([ids])
        except Exception as why:  # the libraries raise bare Exception subclasses of their own
            raise ModelFileError(f"The exported {graph.file} does not run: {why}") from why
        if not np.isfinite(vectors).all() or not vectors.any():
            raise ModelFileError(
                f"The exported {graph.file} gives values that are all zero or not finite."
            )


def builder_hash() -> str:
    """SHA-256 over everything that decides what an export looks like, but the sources."""
    digest = hashlib.sha256(__version__.encode())
    names = ["bert_graph", "bert_source", "bert_weights", "calibration", "calibration_texts"]
    names += ["export_onnx", "families", "graph_builder", "mpnet", "nomic", "quantize", "recipe"]
    names += ["roberta"]
    for name in names:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()


def is_current(source: Path, out: Path) -> bool:
    """Whether `out` is intact and was made from these sources by these scripts."""
    try:
        artifact = artifacts.load_artifact(out)
        artifact.verify()
        made_by = artifact.manifest["exporter"].get("sha256")
        unchanged = all(
            artifacts.hash_file(source / name) == digest
            for name, digest in artifact.sources.items()
        )
    except (EmbedError, OSError):
        return False
    return unchanged and made_by == builder_hash()


def _manifest(source: Path, spec: ModelSpec, config: BertConfig, parameters: int) -> dict[str, Any]:
    """Everything a client can use, and what `Artifact.verify` needs. See `models/artifact.py`."""
    return {
        "schema": artifacts.SCHEMA,
        "id": spec.id,
        "repo": spec.repo,
        "revision": spec.revision,
        "family": spec.family,
        "layers": config.layers,
        "hidden": config.hidden,
        "heads": config.heads,
        "vocab_size": config.vocab_size,
        "parameters": parameters,
        "pooling": spec.pooling,
        "normalize": spec.normalize,
        "dimensions": spec.dimensions,
        "max_tokens": spec.max_tokens,
        "query_prefix": spec.query_prefix,
        "document_prefix": spec.document_prefix,
        "licence": spec.licence,
        "aliases": list(spec.aliases),
        "matryoshka": list(spec.matryoshka),
        "intermediate": config.intermediate,
        "exporter": {
            "name": "cortex-embed build/export_onnx.py",
            "version": __version__,
            "sha256": builder_hash(),
        },
        "sources": {
            name: artifacts.hash_file(source / name) for name in (CONFIG, WEIGHTS, TOKENIZER)
        },
        "notes": _NOTES,
    }


def _files(part: Path) -> dict[str, Any]:
    return {
        path.name: {"size": path.stat().st_size, "sha256": artifacts.hash_file(path)}
        for path in sorted(part.iterdir())
    }


def _write_json(path: Path, value: object, *, indent: int | None) -> None:
    separators = None if indent else (",", ":")
    text = json.dumps(value, ensure_ascii=False, indent=indent, separators=separators)
    # In bytes: text mode would write other line ends, hence another SHA-256, on Windows.
    path.write_bytes(text.encode("utf-8") + b"\n")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Export a model to an artifact directory.")
    parser.add_argument(
        "source", type=Path, help=f"directory with {CONFIG}, {WEIGHTS}, {TOKENIZER}"
    )
    parser.add_argument("--model", required=True, metavar="ID", help="catalogue id, repo or alias")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="directory to write")
    parser.add_argument(
        "--if-changed", action="store_true", help="do nothing where DIR is up to date and intact"
    )
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        entry = find(args.model)
        if entry is None:
            known = ", ".join(e.spec.id for e in catalogue())
            raise UsageError(f"--model: there is no model named {args.model!r}. Known: {known}.")
        if args.if_changed and is_current(args.source, args.out):
            print(f"{entry.spec.id}: the export in {args.out} is up to date and verified.")
            return 0
        artifact = export(args.source, entry.spec, args.out)
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    size = sum(fact.size for fact in artifact.files.values()) / 1e6
    gate = artifact.manifest["gates"]["int8"]
    print(f"Exported {artifact.spec.id}: {size:.1f} MB in {artifact.directory}")
    print(
        f"int8 {'passed' if gate['passed'] else 'FAILED'} its quality gate: mean cosine "
        f"{gate['mean_cosine']:.5f}, top-10 overlap {gate['top10_overlap']:.4f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
