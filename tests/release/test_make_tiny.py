"""Seeded models: the same bytes for ever, and no term that a mistake could hide behind."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bert_graph import build_graph
from bert_source import Weights, read_config
from bert_weights import encoder
from cortex_embed.errors import ModelFileError
from cortex_embed.models.catalogue import find
from make_tiny import (
    geometry_spec,
    main,
    make_geometry,
    make_tiny,
    random_weights,
    tiny_spec,
    tiny_vocabulary,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from make_tiny import TinyPooling

# Golden vectors depend on these numbers: if one of them must change, all goldens must.
TENSORS = {
    "cls": "0270da0cac14f1ad9be20f36d7d4bef513a985c16bf83bf4b77b86eb8ec13445",
    "mean": "999cf68586de01489376b197b18acb13fb2bbbaa903db605fb2d836a682f5aae",
}


def tensors(source: Path) -> dict[str, NDArray[np.float32]]:
    from safetensors.numpy import load_file

    loaded: dict[str, NDArray[np.float32]] = load_file(source / "model.safetensors")
    return loaded


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_the_numbers_never_change(tmp_path: Path, pooling: TinyPooling) -> None:
    digest = sha256()
    for name, tensor in sorted(tensors(make_tiny(tmp_path / "m", pooling)).items()):
        digest.update(name.encode() + tensor.astype("<f4").tobytes())
    assert digest.hexdigest() == TENSORS[pooling]


def test_two_runs_write_the_same_bytes(tmp_path: Path) -> None:
    one, two = make_tiny(tmp_path / "1", "cls"), make_tiny(tmp_path / "2", "cls")
    assert {p.name for p in one.iterdir()} == {"config.json", "model.safetensors", "tokenizer.json"}
    for file in one.iterdir():
        assert file.read_bytes() == (two / file.name).read_bytes()


def test_the_vocabulary_is_small_unique_and_complete() -> None:
    vocabulary = tiny_vocabulary()
    assert 400 < len(vocabulary) < 600
    assert len(set(vocabulary)) == len(vocabulary)
    assert vocabulary[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def test_the_tokenizer_is_berts(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    source = make_tiny(tmp_path / "m", "cls")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    assert tokenizer.truncation is not None
    assert tokenizer.truncation["max_length"] == 16  # the trap that an export must disarm
    assert tokenizer.encode("Hello, café reading").tokens == [
        *("[CLS]", "hello", ",", "c", "##a", "##fe", "read", "##ing", "[SEP]"),
    ]


def test_the_two_tiny_models_differ_wherever_a_pipeline_could_mix_them_up() -> None:
    cls, mean = tiny_spec("cls"), tiny_spec("mean")
    for field in ("id", "repo", "pooling", "max_tokens", "query_prefix", "document_prefix"):
        assert getattr(cls, field) != getattr(mean, field), field
    assert cls.query_prefix != cls.document_prefix


def test_random_weights_do_not_pass_for_the_real_model() -> None:
    real = find("bge-small-en-v1.5")
    assert real is not None
    spec = geometry_spec()
    assert (spec.pooling, spec.max_tokens, spec.dimensions) == ("cls", 512, 384)
    assert not any(spec.answers_to(n) for n in (real.spec.id, real.spec.repo, *real.spec.aliases))


@pytest.mark.real
def test_the_geometry_has_as_many_parameters_as_bge_small(
    tmp_path: Path, minilm_sources: Path
) -> None:
    real = find("bge-small-en-v1.5")
    assert real is not None
    source = make_geometry(tmp_path / "m", minilm_sources / "tokenizer.json")
    pooler = 384 * 384 + 384  # in the real file, used by no embedding
    assert sum(t.size for t in tensors(source).values()) == real.parameters - pooler


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_leaving_out_any_tensor_shows(tmp_path: Path, pooling: TinyPooling) -> None:
    """Zeroing one tensor moves a vector by far more than the parity tolerance of 1e-5."""
    source, spec = make_tiny(tmp_path / "m", pooling), tiny_spec(pooling)
    config = read_config(source / "config.json", spec)
    whole = tensors(source)

    def vectors(weights: dict[str, Any]) -> NDArray[np.float32]:
        import onnxruntime as ort

        model = build_graph(
            encoder(Weights(source, weights), config), config, spec.pooling, compatible=True
        )
        session = ort.InferenceSession(model.SerializeToString())
        ids = np.array([[2, 90, 120, 200, 3], [2, 100, 3, 0, 0]], dtype=np.int64)
        (pooled,) = session.run(None, {"input_ids": ids, "attention_mask": (ids > 0).astype("i8")})
        result: NDArray[np.float32] = pooled
        return result

    intact = vectors(whole)
    for name, tensor in whole.items():
        moved = np.abs(vectors(whole | {name: np.zeros_like(tensor)}) - intact).max()
        if name.endswith("key.bias"):
            assert moved < 1e-5  # softmax does not see what is added to all scores of a row
        else:
            assert moved > 1e-3, name


def test_uniform_numbers_have_the_asked_spread() -> None:
    config = json.loads(
        '{"hidden_size": 64, "intermediate_size": 256, "vocab_size": 500, "type_vocab_size": 2, '
        '"max_position_embeddings": 64, "num_hidden_layers": 1}'
    )
    weight = random_weights(config, 1, 0.25)["encoder.layer.0.intermediate.dense.weight"]
    assert weight.dtype == np.float32
    assert weight.std() == pytest.approx(0.25, rel=0.02)
    assert abs(weight.mean()) < 0.01


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.json cannot be read"):
        make_geometry(tmp_path / "m", tmp_path / "none.json")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mean", str(tmp_path / "m")]) == 0
    assert "Made mean" in capsys.readouterr().out
    assert main(["geometry", str(tmp_path / "g"), "--tokenizer", str(tmp_path / "no")]) == 3
    assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["geometry", str(tmp_path / "g")])
