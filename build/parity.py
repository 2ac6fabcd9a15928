"""Prove that our vectors are the authors': compare with transformers' models.

The reference is float32, eager attention, one text at a time, then sentence-transformers'
pooling and L2 normalization. Compared are the exported graphs (texts alone, and in padded
batches of mixed lengths; and the one for older runtimes) and what a server answers: one
started here for each model (--serve), or one that is running (--url). Needs torch and
transformers (requirements/parity.in); nothing else in this repository may.

    python build/parity.py --work DIR [--only ID] [--serve | --url URL] [--write-golden]
    python build/parity.py --work DIR [--only ID] --introspected   # see parity_published.py
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bert_graph import COMPATIBLE_OPSET
from bert_source import TOKENIZER
from cortex_embed.config import prepare_runtime_environment
from cortex_embed.errors import EmbedError, SelfTestError, UsageError
from cortex_embed.models.catalogue import find
from cortex_embed.vectors import l2_normalize, to_base64
from export_onnx import export
from fetch_model import fetch
from make_families import GEOMETRIES, TINY, make_family, make_family_geometry
from make_tiny import geometry_spec, make_geometry, make_tiny, tiny_spec
from parity_judge import (
    MAX_DIFFERENCE,
    Verdict,
    compare,
    http,
    in_batches,
    must_pass,
    report,
    served,
    serving,
)
from parity_texts import SPECIAL, golden_texts, texts_up_to

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.artifact import Artifact

    Vectors = NDArray[np.float32]
    Embed = Callable[[Sequence[str]], Vectors]

BATCH = 8
ROOT = Path(__file__).resolve().parent.parent
MINILM = "all-minilm-l6-v2"
PACKAGED_GOLDEN = ROOT / "app" / "cortex_embed" / "models" / "golden"
TEST_GOLDEN = ROOT / "tests" / "data"


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to compare: its source files for the reference, its artifact for us."""

    source: Path
    artifact: Artifact

    @property
    def spec(self) -> ModelSpec:
        return self.artifact.spec


def subjects(work: Path, only: str | None) -> list[Subject]:
    """Make (fetch, generate, export) under `work` the model named `only`, or all."""
    entry = find(MINILM)
    if entry is None:
        raise UsageError(f"The catalogue has no {MINILM}.")
    minilm = ROOT / "dist" / "sources" / MINILM  # shared with `nox -s serve`: one download

    def geometry(out: Path) -> Path:
        fetch(entry, minilm)
        return make_geometry(out, minilm / TOKENIZER)

    def real(_out: Path) -> Path:
        fetch(entry, minilm)
        return minilm

    def family(model_id: str, out: Path) -> Path:
        if model_id in TINY:
            return make_family(out, model_id)
        fetch(entry, minilm)
        return make_family_geometry(out, model_id, minilm / TOKENIZER)

    makers: list[tuple[ModelSpec, Callable[[Path], Path]]] = [
        (tiny_spec("cls"), lambda out: make_tiny(out, "cls")),
        (tiny_spec("mean"), lambda out: make_tiny(out, "mean")),
        (geometry_spec(), geometry),
        (entry.spec, real),
        *((spec, partial(family, i)) for i, spec in [*TINY.items(), *GEOMETRIES.items()]),
    ]
    chosen = [(spec, make) for spec, make in makers if only is None or spec.answers_to(only)]
    if not chosen:
        known = ", ".join(spec.id for spec, _ in makers)
        raise UsageError(f"There is no reference for model {only!r}. Compared can be: {known}.")
    made = []
    for spec, make in chosen:
        source = make(work / "sources" / spec.id)
        # Parity is float32's promise; int8 is judged by its own gate.
        out = work / "artifacts" / spec.id
        made.append(Subject(source, export(source, spec, out, precisions=["fp32"])))
    return made


def reference(subject: Subject) -> Embed:
    """Vectors as transformers and sentence-transformers' pooling give them, one text at a time."""
    import numpy as np
    import torch
    from transformers import AutoModel, PreTrainedTokenizerFast
    from transformers.utils import logging

    logging.set_verbosity_error()  # it reports the pooler, which no embedding uses
    logging.disable_progress_bar()
    spec = subject.spec
    # From the source, not from our artifact: our edit of the tokenizer is under test too.
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(subject.source / TOKENIZER))
    model, loading = AutoModel.from_pretrained(
        subject.source,
        add_pooling_layer=False,
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
    )
    if loading["missing_keys"]:  # transformers would invent them
        raise SelfTestError(f"The reference lacks {sorted(loading['missing_keys'])}.")
    model.eval()

    def one(text: str) -> Vectors:
        batch = tokenizer(
            text,
            truncation=True,
            max_length=spec.max_tokens,
            padding=False,
            return_tensors="pt",
        )
        mask = batch["attention_mask"]
        with torch.inference_mode():
            states = model(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            if spec.pooling == "cls":
                pooled = states[:, 0]
            elif spec.pooling == "last_token":
                pooled = states[:, -1]  # no padding: one text at a time
            else:
                wide = mask.unsqueeze(-1).to(states.dtype)
                pooled = (states * wide).sum(1) / wide.sum(1).clamp(min=1e-9)
            vector: Vectors = torch.nn.functional.normalize(pooled, p=2, dim=1)[0].numpy()
        return vector

    return lambda texts: np.stack([one(text) for text in texts])


def exported(subject: Subject, counts: dict[str, int], opset: int | None = None) -> Embed:
    """Vectors of the graph for one padded batch, normalized. `counts` learns tokens by text.

    `opset` asks for a graph no newer than that, instead of the one this runtime takes.
    """
    prepare_runtime_environment()
    import numpy as np
    import onnxruntime as ort
    from tokenizers import Tokenizer

    from cortex_embed.providers.engine import newest_opset

    tokenizer = Tokenizer.from_file(str(subject.artifact.tokenizer))
    tokenizer.enable_truncation(subject.spec.max_tokens)
    tokenizer.enable_padding()
    graph = subject.artifact.graph_for("fp32", opset or newest_opset())
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])

    def embed(texts: Sequence[str]) -> Vectors:
        batch = tokenizer.encode_batch(list(texts))
        mask = np.array([e.attention_mask for e in batch], dtype=np.int64)
        counts.update(zip(texts, mask.sum(axis=1).tolist(), strict=True))
        ids = np.array([e.ids for e in batch], dtype=np.int64)
        (vectors,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        return l2_normalize(vectors)

    return embed


def examine(subject: Subject, url: str | None) -> list[Verdict]:
    """Every comparison of one model."""
    spec = subject.spec
    texts = texts_up_to(subject.artifact.tokenizer, spec.max_tokens)
    theirs = reference(subject)(texts)
    counts: dict[str, int] = {}
    graph = exported(subject, counts)
    runs: list[tuple[str, Embed, int]] = [("graph, alone", graph, 1)]
    if url is None:
        runs.append((f"graph, {BATCH} mixed", graph, BATCH))
        runs.append(("older, alone", exported(subject, counts, COMPATIBLE_OPSET), 1))
    else:
        server = served(url)
        runs = [("served, alone", server, 1), ("served, all", server, len(texts))]
        in_batches(graph, texts, 1)  # for the token counts
    verdicts = []
    for how, embed, size in runs:
        difference, cosine = compare(in_batches(embed, texts, size), theirs)
        span = f"{min(counts.values())}-{max(counts.values())}"
        verdicts.append(Verdict(spec.id, how, len(texts), span, difference, cosine))
    return verdicts


def write_golden(subject: Subject) -> Path:
    """Write the reference's vectors of a few texts. See `cortex_embed.models.golden`."""
    import torch
    import transformers

    spec = subject.spec
    texts = golden_texts(spec.max_tokens)
    if spec.family != "bert":
        texts.insert(-1, SPECIAL)
    vectors = reference(subject)(texts)
    content = {
        "schema": 1,
        "model": spec.id,
        "revision": spec.revision,
        "source": f"build/parity.py: transformers {transformers.__version__}, "
        f"torch {torch.__version__}, float32, eager attention, {spec.pooling} pooling, "
        f"at most {spec.max_tokens} tokens, L2-normalized",
        "tolerance": MAX_DIFFERENCE,
        "encoding": "base64 of little-endian float32",
        "goldens": [
            {"text": text, "vector": to_base64(vector)}
            for text, vector in zip(texts, vectors, strict=True)
        ],
    }
    path = (
        PACKAGED_GOLDEN / f"{spec.id}.json"
        if find(spec.id)
        else TEST_GOLDEN / f"golden-{spec.id}.json"
    )
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def run(args: argparse.Namespace) -> None:
    if args.introspected:
        from parity_published import introspected  # it needs more than the rest

        verdicts = []
        for part in introspected(args.work, args.only):
            report(part)
            verdicts += part
        must_pass(verdicts)
        return
    only: str | None = http(args.url, "GET", "/")["model"] if args.url else args.only
    verdicts = []
    for subject in subjects(args.work, only):
        if args.write_golden:
            print(f"Wrote {write_golden(subject)}")
        verdicts += examine(subject, args.url)
        if args.serve:
            with serving(str(subject.artifact.directory)) as url:
                verdicts += examine(subject, url)
    report(verdicts)
    must_pass(verdicts)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Compare our vectors with transformers'.")
    parser.add_argument("--work", required=True, type=Path, metavar="DIR", help="for models made")
    parser.add_argument("--only", metavar="ID", help="compare this model only")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--serve", action="store_true", help="also compare what our server answers")
    where.add_argument("--url", help="compare what this server serves, e.g. http://127.0.0.1:8121")
    where.add_argument(
        "--introspected", action="store_true", help="compare published graphs instead of ours"
    )
    parser.add_argument("--write-golden", action="store_true", help="rewrite the golden files")
    try:
        run(parser.parse_args(arguments))
    except EmbedError as why:
        print(f"error: {why.message}", file=sys.stderr)
        return why.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
