"""Models for tests: two tiny seeded ones, one of BGE-small's shape, and the real MiniLM.

`conftest.py` imports the fixtures. A model that should be there and is not is a failure, never
a skip: `nox -s tests` makes it.
"""

from __future__ import annotations

import json
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from cortex_embed.errors import ModelFileError, NativeEngineError
from cortex_embed.kernels import INSTRUCTION_SETS, load, supported
from cortex_embed.models.artifact import MANIFEST, fact_of
from cortex_embed.models.catalogue import find
from cortex_embed.models.store import EMBEDDED_DIR, load_artifact
from export_onnx import export
from make_tiny import (
    GEOMETRY_ID,
    geometry_spec,
    kernel_spec,
    make_geometry,
    make_kernel_sized,
    make_tiny,
    tiny_spec,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from cortex_embed.kernels.binding import Kernels
    from cortex_embed.models.artifact import Artifact
    from make_tiny import TinyPooling

MINILM = "all-minilm-l6-v2"
SOURCES = Path(__file__).resolve().parent.parent / "dist" / "sources" / MINILM
DATA = Path(__file__).resolve().parent / "data"


@pytest.fixture(scope="session")
def tiny_cls(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """32 dimensions, CLS pooling, 64 tokens, with both prefixes. Read only."""
    return _tiny(tmp_path_factory, "cls")


@pytest.fixture(scope="session")
def tiny_mean(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """32 dimensions, mean pooling, 48 tokens of 64 positions, without prefixes. Read only."""
    return _tiny(tmp_path_factory, "mean")


@pytest.fixture(scope="session")
def kernel_cls(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """As `tiny_cls`, with 64 dimensions in heads of 32: the native engine runs it. Read only."""
    return _kernel_sized(tmp_path_factory, "cls")


@pytest.fixture(scope="session")
def kernel_mean(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """As `tiny_mean`, likewise. Read only."""
    return _kernel_sized(tmp_path_factory, "mean")


@pytest.fixture(scope="session")
def kernel_sets() -> tuple[str, ...]:
    """The instruction sets that the compiled kernels have for this processor, best first."""
    try:
        return supported()
    except NativeEngineError as why:
        pytest.fail(f"This test needs the kernels; `nox -s tests` compiles them: {why.message}.")


_X86 = platform.machine().lower() in {"x86_64", "amd64"}


@pytest.fixture(params=INSTRUCTION_SETS[:5] if _X86 else INSTRUCTION_SETS[5:])
def kernels(request: pytest.FixtureRequest, kernel_sets: tuple[str, ...]) -> Kernels:
    """The kernels of each instruction set that this processor has."""
    if request.param not in kernel_sets:
        pytest.skip(f"this processor has no {request.param}")
    return load(request.param)


@pytest.fixture(scope="session")
def bge_geometry(tmp_path_factory: pytest.TempPathFactory, minilm_artifact: Artifact) -> Artifact:
    """Random weights in BGE-small's shape: 12 x 384, CLS, 512 tokens, 133 MB. Read only."""
    base = tmp_path_factory.mktemp(GEOMETRY_ID)
    source = make_geometry(base / "source", minilm_artifact.tokenizer)
    artifact = export(source, geometry_spec(), base / GEOMETRY_ID, precisions=["fp32"])
    (source / "model.safetensors").unlink()
    return artifact


@pytest.fixture(scope="session")
def minilm_artifact() -> Artifact:
    """The real all-MiniLM-L6-v2, as embedded by `nox -s tests`. Read only."""
    try:
        artifact = load_artifact(EMBEDDED_DIR)
    except ModelFileError as why:
        pytest.fail(f"This test needs the embedded model; `nox -s tests` makes it. {why.message}")
    if artifact.spec.id != MINILM:
        pytest.fail(f"{EMBEDDED_DIR} holds {artifact.spec.id}; `nox -s tests` puts {MINILM} there.")
    return artifact


@pytest.fixture(scope="session")
def minilm_sources() -> Path:
    """Directory with MiniLM's source files, as fetched by `nox -s tests`. Read only."""
    entry = find(MINILM)
    assert entry is not None
    for file in entry.source_files:
        if not (SOURCES / file.path).is_file():
            pytest.fail(f"{SOURCES / file.path} is missing; `nox -s tests` fetches it.")
    return SOURCES


def _tiny(factory: pytest.TempPathFactory, pooling: TinyPooling) -> Artifact:
    base = factory.mktemp(f"tiny-{pooling}")
    spec = tiny_spec(pooling)
    return export(make_tiny(base / "source", pooling), spec, base / spec.id)


def _kernel_sized(factory: pytest.TempPathFactory, pooling: TinyPooling) -> Artifact:
    base = factory.mktemp(f"kernel-{pooling}")
    spec = kernel_spec(pooling)
    return export(make_kernel_sized(base / "source", pooling), spec, base / spec.id)


def with_other_graph(artifact: Artifact, directory: Path) -> Artifact:
    """A copy in `directory` whose int8 graphs compute the same in a form that ours do not have."""
    import onnx

    shutil.copytree(artifact.directory, directory)
    manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
    for row in manifest["graphs"]:
        if row["precision"] != "int8":
            continue
        path = directory / row["file"]
        model = onnx.load(str(path), load_external_data=False)
        last = model.graph.node[-1]
        name, last.output[0] = last.output[0], "before"
        model.graph.node.append(onnx.helper.make_node("Abs", ["before"], ["positive"]))
        model.graph.node.append(onnx.helper.make_node("Sign", ["before"], ["sign"]))
        model.graph.node.append(onnx.helper.make_node("Mul", ["positive", "sign"], [name]))
        path.write_bytes(model.SerializeToString())
        manifest["files"][path.name] = msgspec.to_builtins(fact_of(path))
    (directory / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return load_artifact(directory)


def embed_directly(
    artifact: Artifact, texts: Sequence[str], *, batch: int, precision: str = "fp32"
) -> NDArray[np.float32]:
    """Pooled vectors [n, d] straight from tokenizers and onnxruntime, without our pipeline."""
    import numpy as np
    import onnxruntime as ort
    from tokenizers import Tokenizer

    from cortex_embed.providers.engine import newest_opset

    tokenizer = Tokenizer.from_file(str(artifact.tokenizer))
    tokenizer.enable_truncation(artifact.spec.max_tokens)
    tokenizer.enable_padding()
    graph = artifact.graph_for(precision, newest_opset())
    session = ort.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    parts = []
    for start in range(0, len(texts), batch):
        encoded = tokenizer.encode_batch(list(texts[start : start + batch]))
        ids = np.array([e.ids for e in encoded], dtype=np.int64)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
        parts += session.run(None, {"input_ids": ids, "attention_mask": mask})
    return np.concatenate(parts)
