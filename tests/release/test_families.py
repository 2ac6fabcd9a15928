"""Every family reproduces transformers (by golden vectors), alone and among neighbours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import pytest
from msgspec.structs import replace
from tokenizers import Tokenizer

from bert_graph import COMPATIBLE_OPSET, build_graph
from bert_source import Weights
from cortex_embed.errors import ModelFileError
from cortex_embed.models.golden import read_goldens
from cortex_embed.providers.engine import newest_opset
from cortex_embed.vectors import l2_normalize
from export_onnx import export
from families import FAMILIES, family_of
from make_families import TINY, make_family
from make_tiny import make_tiny, tiny_spec
from parity_judge import compare
from parity_texts import PLAIN, SPECIAL, filler
from tests.models_fixtures import DATA
from tests.release.conftest import MEASURED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from cortex_embed.models.artifact import Artifact

    Artifacts = Callable[[str], Artifact]

OPSETS = sorted({COMPATIBLE_OPSET, newest_opset()})
TEXTS = [*PLAIN, SPECIAL, "", filler(10), filler(100)]


def tokens(artifact: Artifact, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = Tokenizer.from_file(str(artifact.tokenizer))
    tokenizer.enable_truncation(artifact.spec.max_tokens)
    return [e.ids for e in tokenizer.encode_batch(list(texts))]


def embed(graph: Path | bytes, ids: Sequence[Sequence[int]], *, batch: int) -> NDArray[np.float32]:
    """Pooled vectors [n, d] straight from onnxruntime, padded with another id than ours."""
    session = ort.InferenceSession(graph if isinstance(graph, bytes) else str(graph))
    parts = []
    for start in range(0, len(ids), batch):
        rows = ids[start : start + batch]
        padded = np.full((len(rows), max(map(len, rows))), 4, dtype=np.int64)
        mask = np.zeros_like(padded)
        for row, text in enumerate(rows):
            padded[row, : len(text)], mask[row, : len(text)] = text, 1
        parts += session.run(None, {"input_ids": padded, "attention_mask": mask})
    return np.concatenate(parts)


@pytest.mark.parametrize("batch", [1, 9])
@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", TINY)
def test_every_family_reproduces_transformers(
    family_artifact: Artifacts, name: str, opset: int, batch: int
) -> None:
    artifact = family_artifact(name)
    known = read_goldens(DATA / f"golden-{name}.json")
    assert len(known) == 9
    assert SPECIAL in {g.text for g in known}
    assert all(g.tolerance == 1e-5 and len(g.vector) == 32 for g in known)
    ids = tokens(artifact, [g.text for g in known])
    vectors = l2_normalize(embed(artifact.graph_for("fp32", opset), ids, batch=batch))
    difference, cosine = compare(vectors, np.array([g.vector for g in known], np.float32))
    assert difference <= 1e-5
    assert cosine >= 0.999999


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", TINY)
def test_neighbours_do_not_matter(family_artifact: Artifacts, name: str, opset: int) -> None:
    artifact = family_artifact(name)
    graph, ids = artifact.graph_for("fp32", opset), tokens(artifact, TEXTS)
    alone, together = embed(graph, ids, batch=1), embed(graph, ids, batch=len(ids))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("name", MEASURED)
def test_int8_is_measured_and_invariant(family_artifact: Artifacts, name: str, opset: int) -> None:
    artifact = family_artifact(name)
    gate = artifact.manifest["gates"]["int8"]
    assert gate["texts"] == 400
    assert 0.99 < gate["mean_cosine"] < 1
    ids = tokens(artifact, TEXTS)
    exact = l2_normalize(embed(artifact.graph_for("fp32", opset), ids, batch=1))
    graph = artifact.graph_for("int8", opset)
    alone, together = embed(graph, ids, batch=1), embed(graph, ids, batch=len(ids))
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)
    assert (exact * l2_normalize(alone)).sum(1).min() > 0.99
    assert np.abs(exact - l2_normalize(alone)).max() > 1e-5  # bytes, not float32 by mistake


def load(source: Path) -> dict[str, Any]:
    from safetensors.numpy import load_file

    tensors: dict[str, Any] = load_file(source / "model.safetensors")
    return tensors


def configure(source: Path, **changes: object) -> None:
    """Change keys of config.json; `...` leaves one out."""
    path = source / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def refused(source: Path, out: Path, spec: Any) -> str:
    with pytest.raises(ModelFileError) as caught:
        export(source, spec, out, precisions=["fp32"])
    assert not out.exists()
    return caught.value.message


@pytest.mark.parametrize("name", ["tiny-roberta", "tiny-mpnet", "tiny-nomic-bert"])
def test_leaving_out_any_tensor_shows(tmp_path: Path, name: str) -> None:
    """Zeroing one tensor moves a vector by far more than the parity tolerance of 1e-5."""
    source, spec = make_family(tmp_path / "m", name), TINY[name]
    family, whole = family_of(spec), load(source)
    config = family.read_config(source / "config.json", spec)

    def vectors(tensors: dict[str, Any]) -> NDArray[np.float32]:
        encoder = family.arrange(Weights(source, tensors), config)
        model = build_graph(encoder, config, "mean", blocks=family.blocks, compatible=True)
        return embed(model.SerializeToString(), [[0, 90, 120, 200, 2], [0, 100, 2]], batch=2)

    intact = vectors(whole)
    for tensor_name, tensor in whole.items():
        moved = np.abs(vectors(whole | {tensor_name: np.zeros_like(tensor)}) - intact).max()
        if tensor_name.endswith(("key.bias", "attn.k.bias")):
            assert moved < 1e-5  # softmax does not see what is added to all scores of a row
        else:
            assert moved > 1e-3, tensor_name


BERT_LIKE: list[tuple[dict[str, object], str]] = [
    ({"model_type": "bert"}, "`model_type` is 'bert'; only"),
    ({"model_type": ...}, "`model_type` is None; only"),
    ({"hidden_act": "gelu_new"}, "`hidden_act` is 'gelu_new'; only 'gelu'"),
    ({"position_embedding_type": "relative_key"}, "`position_embedding_type`"),
    ({"is_decoder": True}, "`is_decoder` is True"),
    ({"max_position_embeddings": 49}, "max_tokens is 48, over the 47 positions"),
    ({"num_hidden_layers": 3}, "has no tensor 'encoder.layer.2."),
    ({"vocab_size": 100}, "the largest token id is"),
]
REFUSED: dict[str, list[tuple[dict[str, object], str]]] = {
    "tiny-roberta": [
        *BERT_LIKE,
        ({"model_type": "xlm-roberta"}, "only 'roberta' can be exported"),
        ({"pad_token_id": ...}, "`pad_token_id` is missing"),
        ({"type_vocab_size": 0}, "`type_vocab_size` must be at least 1"),
    ],
    "tiny-mpnet": [
        *BERT_LIKE,
        ({"relative_attention_num_buckets": 64}, "`relative_attention_num_buckets` is 64; only 32"),
        ({"pad_token_id": 0}, "`pad_token_id` is 0; only 1"),
        ({"num_attention_heads": 8}, "shape [32, 4], config.json says [32, 8]"),
    ],
    "tiny-nomic-bert": [
        ({"model_type": "bert"}, "`model_type` is 'bert'; only 'nomic_bert'"),
        ({"activation_function": "gelu"}, "`activation_function` is 'gelu'; only 'swiglu'"),
        ({"activation_function": ...}, "`activation_function` is None; only 'swiglu'"),
        ({"hidden_act": "gelu"}, "`hidden_act` is 'gelu'; only 'silu'"),
        ({"prenorm": True}, "`prenorm` is True; only False"),
        ({"parallel_block": True}, "`parallel_block` is True"),
        ({"causal": True}, "`causal` is True"),
        ({"use_rms_norm": True}, "`use_rms_norm` is True"),
        ({"qkv_proj_bias": True}, "`qkv_proj_bias` is True; only False"),
        ({"qkv_proj_bias": ...}, "`qkv_proj_bias` is None; only False"),
        ({"mlp_fc1_bias": True}, "`mlp_fc1_bias` is True"),
        ({"num_experts": 8}, "`num_experts` is 8; only 0"),
        ({"num_heads_kv": 2}, "`num_heads_kv` is 2; only 4"),
        ({"head_dim": 16}, "`head_dim` is 16; only 8"),
        ({"rotary_emb_fraction": 0.5}, "`rotary_emb_fraction` is 0.5; only 1.0"),
        ({"rotary_emb_interleaved": True}, "`rotary_emb_interleaved` is True"),
        ({"rotary_scaling_factor": 2}, "`rotary_scaling_factor` is 2; only None"),
        ({"rotary_emb_base": 500}, "`rotary_emb_base` is 500; only 1000.0"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1000}}, "`rope_type` is 'yarn'"),
        ({"rope_parameters": {"rope_type": "default"}}, "`rope_theta` is missing"),
        ({"hidden_size": 64}, "`n_embd` and `hidden_size` differ"),
        ({"layer_norm_eps": 1e-5}, "`layer_norm_epsilon` is 1e-12; only 1e-05"),
        ({"n_positions": 32}, "max_tokens is 48, over the 32 positions"),
        ({"n_layer": 3, "num_hidden_layers": 3}, "has no tensor 'encoder.layers.2."),
        ({"vocab_size": 100}, "the largest token id is"),
    ],
}


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [(name, changes, words) for name, rows in REFUSED.items() for changes, words in rows],
)
def test_an_unsupported_configuration_is_refused(
    tmp_path: Path, name: str, changes: dict[str, object], words: str
) -> None:
    source = make_family(tmp_path / "source", name)
    configure(source, **changes)
    assert words in refused(source, tmp_path / "out", TINY[name])


def test_a_family_that_cannot_be_exported_names_those_that_can(tmp_path: Path) -> None:
    source = make_family(tmp_path / "source", "tiny-mpnet")
    message = refused(source, tmp_path / "out", replace(TINY["tiny-mpnet"], family="t5-encoder"))
    assert "family is 't5-encoder', only bert, mpnet, nomic-bert, roberta, xlm-roberta" in message
    assert len(FAMILIES) == 5


@pytest.mark.parametrize(
    ("name", "prefix"), [("tiny-roberta", "roberta."), ("tiny-mpnet", "mpnet.")]
)
def test_names_may_start_with_the_family(tmp_path: Path, name: str, prefix: str) -> None:
    from safetensors.numpy import save_file

    source, spec = make_family(tmp_path / "source", name), TINY[name]
    plain = export(source, spec, tmp_path / "out", precisions=["fp32"]).files
    save_file({prefix + n: t for n, t in load(source).items()}, source / "model.safetensors")
    assert export(source, spec, tmp_path / "out", precisions=["fp32"]).files == plain


def test_last_token_of_an_empty_mask_gives_numbers(family_artifact: Artifacts) -> None:
    for opset in OPSETS:
        graph = family_artifact("tiny-roberta").graph_for("fp32", opset)
        feed = {"input_ids": np.array([[0, 2]]), "attention_mask": np.array([[0, 0]])}
        (vectors,) = ort.InferenceSession(str(graph)).run(None, feed)
        assert np.isfinite(vectors).all()


def test_the_last_token_is_the_last_row_of_a_bert_too(tmp_path: Path) -> None:
    """One token alone: every pooling gives the same row; more: they do not."""
    source = make_tiny(tmp_path / "source", "mean")
    spec, vectors = tiny_spec("mean"), {}
    for pooling in ("cls", "mean", "last_token"):
        changed: Any = replace(spec, pooling=pooling)
        made = export(source, changed, tmp_path / pooling, precisions=["fp32"])
        vectors[pooling] = embed(
            made.graph_for("fp32", OPSETS[-1]), [[90], [90, 120, 200]], batch=2
        )
    np.testing.assert_allclose(vectors["last_token"][0], vectors["cls"][0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(vectors["last_token"][0], vectors["mean"][0], rtol=0, atol=1e-6)
    assert np.abs(vectors["last_token"][1] - vectors["cls"][1]).max() > 0.01
    assert np.abs(vectors["last_token"][1] - vectors["mean"][1]).max() > 0.01


@pytest.mark.parametrize("name", ["tiny-xlm-roberta", "tiny-roberta"])
def test_a_token_without_a_row_is_refused(tmp_path: Path, name: str) -> None:
    """Of a Unigram list, of BPE's table, or among the added tokens."""
    source = make_family(tmp_path / "source", name)
    path = source / "tokenizer.json"
    whole = json.loads(path.read_text())
    for change in ("vocab", "added_tokens"):
        table = json.loads(json.dumps(whole))
        if change == "added_tokens":
            table["added_tokens"][-1]["id"] = 5000
        elif isinstance(table["model"]["vocab"], list):
            table["model"]["vocab"] += [[f"piece {i}", -9.0] for i in range(5001)]
        else:
            table["model"]["vocab"]["one more"] = 5000
        path.write_text(json.dumps(table))
        message = refused(source, tmp_path / "out", TINY[name])
        assert "the largest token id is 5" in message, change


def test_a_bert_may_have_an_xlm_roberta_tokenizer(tmp_path: Path) -> None:
    """As multilingual-e5-small has: its ids are what counts, not its kind."""
    source = make_tiny(tmp_path / "source", "mean")
    other = make_family(tmp_path / "other", "tiny-xlm-roberta")
    (source / "tokenizer.json").write_bytes((other / "tokenizer.json").read_bytes())
    made = export(source, tiny_spec("mean"), tmp_path / "out", precisions=["fp32"])
    assert Tokenizer.from_file(str(made.tokenizer)).encode("hello").tokens[0] == "<s>"
