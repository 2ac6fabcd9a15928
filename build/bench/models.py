"""The same weights in every shape that a peer reads: sentence-transformers' layout, plain ONNX,
GGUF, and our artifact.

Two models: the real all-MiniLM-L6-v2, and BGE-small's geometry with random weights, whose real
ones a machine without the hub cannot get. It must never give two peers different numbers.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.envs import ROOT, PeerError, clean_environment, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.domain import ModelSpec

MAX_TOKENS = 256
"""For all peers and both models: MiniLM's own limit."""
MINILM = "all-minilm-l6-v2"
BGE = "bge-geometry"


@dataclass(frozen=True, slots=True)
class BenchModel:
    """One model and its files. `onnx` and `gguf` may be absent; `missing` says why."""

    spec: ModelSpec
    home: Path
    config: dict[str, Any]
    missing: dict[str, str]

    @property
    def hf(self) -> Path:
        return self.home / "hf"

    @property
    def plain(self) -> Path:
        return self.home / "plain"

    @property
    def gguf(self) -> Path:
        return self.home / "model-f32.gguf"

    @property
    def artifact(self) -> Path:
        return self.home / "artifact"

    def for_worker(self) -> dict[str, Any]:
        """What a worker's `load` gets."""
        return {
            "id": self.spec.id,
            "hf": str(self.hf),
            "plain": str(self.plain),
            "onnx": str(self.plain / "model.onnx"),
            "artifact": str(self.artifact),
            "pooling": self.spec.pooling,
            "dimensions": self.spec.dimensions,
            "max_tokens": MAX_TOKENS,
        }

    def flops(self, lengths: list[int]) -> tuple[float, float]:
        """Multiply-adds x 2 of linear layers and of attention for texts of these lengths.

        Of the whole encoder: what a pruned last layer saves still counts as done.
        """
        c = self.config
        hidden, inner, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
        linear = layers * 2 * (4 * hidden * hidden + 2 * hidden * inner)
        attention = layers * 2 * 2 * hidden
        return (
            float(linear * sum(lengths)),
            float(attention * sum(length * length for length in lengths)),
        )


def make(name: str, work: Path, envs: Path, *, wanted: set[str]) -> BenchModel:
    """Every shape of `name` that `wanted` (of onnx, gguf) asks for, under `work`.

    What a peer's tools cannot make is a reason in `missing`, not an end.
    """
    spec, source = _source(name, work)
    home = work / "models" / name
    _huggingface(source, spec, home / "hf")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    model = BenchModel(spec, home, config, {})
    _artifact(model, source)
    steps: dict[str, tuple[str, str, Path, list[str]]] = {
        "onnx": ("sentence-transformers", "plain_export", model.plain / "model.onnx", []),
        "gguf": ("llama-cpp", "gguf_write", model.gguf, [spec.pooling]),
    }
    for kind in sorted(wanted):
        env, module, out, extra = steps[kind]
        try:
            _convert(model, prepare(env, envs), module, out, extra)
        except PeerError as why:
            model.missing[kind] = str(why)
    return model


def _source(name: str, work: Path) -> tuple[ModelSpec, Path]:
    from cortex_embed.models.catalogue import find
    from fetch_model import fetch
    from make_tiny import geometry_spec, make_geometry

    real = find(MINILM)
    assert real is not None  # noqa: S101 - the catalogue's own default
    minilm = ROOT / "dist" / "sources" / MINILM  # where nox puts it too
    fetch(real, minilm)
    if name == MINILM:
        return real.spec, minilm
    target = work / "sources" / BGE
    if not (target / "model.safetensors").is_file():
        make_geometry(target, minilm / "tokenizer.json")
    return geometry_spec(), target


def _huggingface(source: Path, spec: ModelSpec, out: Path) -> None:
    """sentence-transformers' layout, cut at MAX_TOKENS in every place where a peer looks."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors"):
        if not (out / name).exists():
            shutil.copyfile(source / name, out / name)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer["truncation"] = tokenizer["padding"] = None
    vocabulary = sorted(tokenizer["model"]["vocab"].items(), key=lambda item: item[1])
    (out / "vocab.txt").write_text("".join(f"{t}\n" for t, _ in vocabulary), encoding="utf-8")
    special = {
        f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")
    }
    pooling = {
        "word_embedding_dimension": spec.dimensions,
        "pooling_mode_cls_token": spec.pooling == "cls",
        "pooling_mode_mean_tokens": spec.pooling == "mean",
    }
    modules = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(
            [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        )
    ]
    files = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": special
        | {
            "do_lower_case": True,
            "model_max_length": MAX_TOKENS,
            "tokenizer_class": "BertTokenizer",
        },
        "special_tokens_map.json": special,
        "modules.json": modules,
        "1_Pooling/config.json": pooling,
        "2_Normalize/config.json": {},
        "sentence_bert_config.json": {"max_seq_length": MAX_TOKENS, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
    }
    for name, value in files.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def _artifact(model: BenchModel, source: Path) -> None:
    """Our own, exported anew each time: the graph under test is the one in this tree.

    Cut at MAX_TOKENS like everyone's, so that BGE's 512 is no advantage to the others.
    """
    from msgspec.structs import replace

    from export_onnx import export

    export(source, replace(model.spec, max_tokens=MAX_TOKENS), model.artifact)


def _convert(model: BenchModel, python: Path, module: str, out: Path, extra: list[str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if module == "plain_export":
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json",
                     "special_tokens_map.json"):  # fmt: skip
            shutil.copyfile(model.hf / name, out.parent / name)
    if out.is_file():
        return
    command = [str(python), "-m", f"bench.workers.{module}", str(model.hf), str(out), *extra]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=clean_environment(2)
    )
    if done.returncode:
        raise PeerError("\n".join(done.stderr.strip().splitlines()[-8:]))
