"""Turn a model's source files into an artifact directory: weights in, ONNX graph out.

The graph is built node by node (`bert_graph.py`), so that neither torch nor transformers is
needed and every operator is chosen on purpose. It must never fetch anything, and never leave
an artifact directory that did not pass its own check.

    python build/export_onnx.py SOURCE_DIR --model ID --out DIR
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert_graph import OPSET, OUTPUT, build_graph
from bert_source import CONFIG, TOKENIZER, WEIGHTS, read_config, read_tokenizer, read_weights
from cortex_embed import __version__
from cortex_embed.config import prepare_runtime_environment
from cortex_embed.errors import EmbedError, ModelFileError, UsageError
from cortex_embed.models import artifact as artifacts
from cortex_embed.models.catalogue import catalogue, find
from staging import exit_on_sigterm, replace_directory, staging

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bert_source import BertConfig
    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.artifact import Artifact


def export(source: Path, spec: ModelSpec, out: Path) -> Artifact:
    """Write the artifact directory `out` from the files in `source`; an older one is replaced.

    The same sources give the same bytes. Raises ModelFileError for sources that are missing,
    damaged or of an unsupported kind, OutputError if `out` cannot be written.
    """
    config = read_config(source / CONFIG, spec)
    tokenizer = read_tokenizer(source / TOKENIZER, config)
    weights = read_weights(source / WEIGHTS)
    model = build_graph(weights, config, spec)
    with staging(out) as part:
        (part / artifacts.GRAPH).write_bytes(model.SerializeToString(deterministic=True))
        _write_json(part / artifacts.TOKENIZER, tokenizer, indent=None)
        manifest = _manifest(source, part, spec, config, weights.parameters)
        _write_json(part / artifacts.MANIFEST, manifest, indent=2)
        check(artifacts.load_artifact(part))
        replace_directory(part, out, marker=artifacts.MANIFEST)
    return artifacts.load_artifact(out)


def check(artifact: Artifact) -> None:
    """Load what was written and embed one text. Raises ModelFileError if that fails."""
    prepare_runtime_environment()
    import numpy as np
    import onnx
    import onnxruntime as ort
    from tokenizers import Tokenizer

    artifact.verify()
    try:
        onnx.checker.check_model(str(artifact.graph))
        session = ort.InferenceSession(str(artifact.graph), providers=["CPUExecutionProvider"])
        ids = Tokenizer.from_file(str(artifact.tokenizer)).encode("hello world").ids
        batch = np.array([ids], dtype=np.int64)
        feeds = {"input_ids": batch, "attention_mask": np.ones_like(batch)}
        (vectors,) = session.run([OUTPUT], feeds)
    except Exception as why:  # the libraries raise bare Exception subclasses of their own
        raise ModelFileError(f"The exported {artifact.spec.id} does not run: {why}") from why
    wanted = (1, artifact.spec.dimensions)
    if vectors.shape != wanted or not np.isfinite(vectors).all() or not vectors.any():
        raise ModelFileError(
            f"The exported {artifact.spec.id} gives shape {vectors.shape} for one text (expected "
            f"{wanted}), or values that are all zero or not finite."
        )


def _manifest(
    source: Path, part: Path, spec: ModelSpec, config: BertConfig, parameters: int
) -> dict[str, Any]:
    """Everything a client can use, and what `Artifact.verify` needs. See `models/artifact.py`."""
    names = (artifacts.GRAPH, artifacts.TOKENIZER)
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
        "precision": "fp32",
        "opset": OPSET,
        "exporter": {"name": "cortex-embed build/export_onnx.py", "version": __version__},
        "sources": {
            name: artifacts.hash_file(source / name) for name in (CONFIG, WEIGHTS, TOKENIZER)
        },
        "files": {
            name: {
                "size": (part / name).stat().st_size,
                "sha256": artifacts.hash_file(part / name),
            }
            for name in names
        },
        "notes": ["tokenizer.json: the source's own truncation and padding are removed"],
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
    args = parser.parse_args(arguments)
    exit_on_sigterm()
    try:
        entry = find(args.model)
        if entry is None:
            known = ", ".join(e.spec.id for e in catalogue())
            raise UsageError(f"--model: there is no model named {args.model!r}. Known: {known}.")
        artifact = export(args.source, entry.spec, args.out)
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    size = artifact.files[artifacts.GRAPH].size / 1e6
    print(f"Exported {artifact.spec.id}: {size:.1f} MB in {artifact.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
