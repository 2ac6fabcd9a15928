"""Show an encoder our calibration texts, and judge its int8 by other ones.

It must never let the two kinds of text meet: what is judged on was not calibrated on.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from bert_graph import MASK, Bert, build_graph
from calibration_texts import calibration_texts
from cortex_embed.config import prepare_runtime_environment
from graph_builder import WeightsFile, move_weights
from quality_texts import quality_texts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto

    from bert_source import BertConfig
    from bert_weights import Encoder
    from cortex_embed.domain import ModelSpec

    Floats = NDArray[np.float32]
    Observed = NDArray[np.float16 | np.float32]
    Ids = NDArray[np.int64]

MIN_COSINE = 0.9985
MIN_OVERLAP = 0.96
_BATCH = 8


def observe(
    tokenizer: Path,
    encoder: Encoder,
    config: BertConfig,
    *,
    max_tokens: int,
    blocks: type[Bert] = Bert,
) -> Mapping[str, Observed]:
    """What every quantizable input holds for the calibration texts.

    [tokens, channels] by `LAYER.INPUT`, real tokens only (no padding); float16, which is exact
    enough for values about to become bytes and takes half the memory, or float32 where a value is
    too large for it.
    """
    prepare_runtime_environment()
    import numpy as np

    from cortex_embed.providers.engine import newest_opset, padded

    names: dict[str, str] = {}
    compatible = newest_opset() < 24
    model = build_graph(encoder, config, "mean", blocks=blocks, compatible=compatible, inputs=names)
    session = _session(model)
    rows: dict[str, list[Observed]] = {place: [] for place in names}
    for batch in _batches(_encode(tokenizer, calibration_texts(), max_tokens)):
        feed = padded(batch)
        kept = feed[MASK].ravel() > 0
        for place, values in zip(names, session.run(list(names.values()), feed), strict=True):
            rows[place].append(_halved(values[kept]))
    # One place after the other: all of it twice would be gigabytes.
    return {place: np.concatenate(rows.pop(place)) for place in names}


def _halved(values: Floats) -> Observed:
    import numpy as np

    fits = np.abs(values).max(initial=0) <= np.finfo(np.float16).max
    return values.astype(np.float16) if fits else values


def _session(model: ModelProto) -> Any:
    """`model` in the runtime. By way of files, since no protobuf message exceeds 2 GB."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    data = WeightsFile("observed.data")
    move_weights(model, data)
    # Windows lets no mapped file be removed, so what is left is left to its temp directory.
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        path = Path(name) / "observed.onnx"
        data.write(path.parent)
        path.write_bytes(model.SerializeToString())
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def judge(directory: Path, spec: ModelSpec, *, newest: Mapping[str, str]) -> dict[str, Any]:
    """Compare int8 with float32 over `quality_texts`: a row of the manifest's `gates`.

    `newest` names the graph file of each precision.
    """
    import numpy as np

    from cortex_embed.models.artifact import TOKENIZER
    from cortex_embed.providers.engine import Engine
    from cortex_embed.vectors import l2_normalize

    texts = _encode(directory / TOKENIZER, quality_texts(), min(spec.max_tokens, 256))
    batches = _batches(texts)
    vectors = {}
    for precision, file in newest.items():
        engine = Engine(directory / file, dimensions=spec.dimensions)
        pooled = np.concatenate([engine.run(batch) for batch in batches])
        vectors[precision] = l2_normalize(pooled)
    cosine = float((vectors["fp32"] * vectors["int8"]).sum(1).mean())
    overlap = top_overlap(vectors["fp32"], vectors["int8"], 10)
    return {
        "passed": cosine >= MIN_COSINE and overlap >= MIN_OVERLAP,
        "mean_cosine": round(cosine, 6),
        "top10_overlap": round(overlap, 4),
        "min_mean_cosine": MIN_COSINE,
        "min_top10_overlap": MIN_OVERLAP,
        "texts": len(texts),
        "source": "comments of the Python standard library",
    }


def top_overlap(exact: Floats, other: Floats, count: int) -> float:
    """Mean share of each row's `count` nearest neighbours (by dot product) that agree."""
    import numpy as np

    shares = []
    for row in range(len(exact)):
        nearest = []
        for vectors in (exact, other):
            scores = vectors @ vectors[row]
            scores[row] = -np.inf
            nearest.append(set(np.argsort(-scores, kind="stable")[:count].tolist()))
        shares.append(len(nearest[0] & nearest[1]) / count)
    return float(np.mean(shares))


def _encode(tokenizer: Path, texts: Sequence[str], max_tokens: int) -> list[Ids]:
    """Token ids of every text, shortest first."""
    from cortex_embed.providers.tokenizer import Tokenizer

    encoder = Tokenizer(tokenizer, max_tokens=max_tokens)
    encoded = encoder.encode(texts, prefix="", truncate="end")
    return sorted((e.ids for e in encoded), key=len)


def _batches(texts: list[Ids]) -> list[list[Ids]]:
    return [texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH)]
