"""Seeded models of every family: the same bytes for ever, in the layout of their repositories."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING

import pytest
from tokenizers import Tokenizer

from cortex_embed.errors import ModelFileError
from make_families import GEOMETRIES, TINY, largest_id, main, make_family, make_family_geometry

if TYPE_CHECKING:
    from pathlib import Path

# Golden vectors depend on these numbers: if one of them must change, all goldens must.
TENSORS = {
    "tiny-xlm-roberta": "bb62b6fc5bff5e02996d93c81ad7661f3b45c0cfc7b1257ab928524e1efb0e37",
    "tiny-roberta": "be9008abcbedda24165eacabad871f6079046892fbbbb6182f8d190782a2b208",
    "tiny-mpnet": "18a942c0ba5b41e58230ad44ce98a758349f748bde4ae93300fbed35d0b3e622",
    "tiny-mpnet-cls": "18a942c0ba5b41e58230ad44ce98a758349f748bde4ae93300fbed35d0b3e622",
    "tiny-nomic-bert": "9c80061695924aa4158e705c72549476eedc7b1338aec7a83cf9b23482d93d48",
    "tiny-nomic-bert-cls": "9c80061695924aa4158e705c72549476eedc7b1338aec7a83cf9b23482d93d48",
}
NAMES = {
    "tiny-roberta": "encoder.layer.1.attention.self.query.weight",
    "tiny-xlm-roberta": "embeddings.token_type_embeddings.weight",
    "tiny-mpnet": "encoder.relative_attention_bias.weight",
    "tiny-nomic-bert": "encoder.layers.1.attn.Wqkv.weight",
}


@pytest.mark.parametrize("name", TINY)
def test_the_numbers_never_change(tmp_path: Path, name: str) -> None:
    from safetensors.numpy import load_file

    digest = sha256()
    source = make_family(tmp_path / "m", name)
    for key, tensor in sorted(load_file(source / "model.safetensors").items()):
        digest.update(key.encode() + tensor.astype("<f4").tobytes())
    digest.update((source / "tokenizer.json").read_bytes())
    assert digest.hexdigest() == TENSORS[name]


@pytest.mark.parametrize(("name", "tensor"), NAMES.items())
def test_tensors_are_called_as_in_the_repositories(tmp_path: Path, name: str, tensor: str) -> None:
    from safetensors.numpy import load_file

    tensors = load_file(make_family(tmp_path / "m", name) / "model.safetensors")
    assert tensor in tensors
    if name == "tiny-nomic-bert":
        assert tensors[tensor].shape == (96, 32)
        assert {n.split(".")[-2] for n in tensors if n.endswith(".bias")} == {
            "emb_ln", "norm1", "norm2",
        }  # fmt: skip


def test_tokens_are_those_of_each_kind(tmp_path: Path) -> None:
    wanted = {
        "tiny-mpnet": ["<s>", "hello", ",", "c", "##a", "##fe", "read", "##ing", "</s>"],
        "tiny-nomic-bert": ["[CLS]", "hello", ",", "c", "##a", "##fe", "read", "##ing", "[SEP]"],
        "tiny-roberta": [
            "<s>", "Ġhello", ",", "Ġca", "f", "Ã", "©", "Ġread", "i", "n", "g", "</s>",
        ],
        "tiny-xlm-roberta": ["<s>", "▁hello", ",", "▁c", "a", "f", "é", "▁read", "ing", "</s>"],
    }  # fmt: skip
    for name, tokens in wanted.items():
        source = make_family(tmp_path / name, name)
        tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
        assert tokenizer.truncation is not None
        assert tokenizer.truncation["max_length"] == 16  # the trap that an export must disarm
        assert tokenizer.encode("hello, café reading").tokens == tokens


def test_every_id_has_a_row(tmp_path: Path) -> None:
    for name in TINY:
        source = make_family(tmp_path / name, name)
        config = json.loads((source / "config.json").read_text())
        tokenizer = json.loads((source / "tokenizer.json").read_text())
        ids = Tokenizer.from_file(str(source / "tokenizer.json")).get_vocab().values()
        assert largest_id(tokenizer) == max(ids)
        assert max(ids) < config["vocab_size"]
        assert config["vocab_size"] % 64 == 0


@pytest.mark.real
def test_geometries_have_the_shape_of_a_base_model(tmp_path: Path, minilm_sources: Path) -> None:
    from safetensors import safe_open

    source = make_family_geometry(
        tmp_path / "m", "mpnet-geometry", minilm_sources / "tokenizer.json"
    )
    with safe_open(source / "model.safetensors", framework="np") as file:
        assert file.get_slice("encoder.layer.11.attention.attn.q.weight").get_shape() == [768, 768]
        shape = file.get_slice("encoder.relative_attention_bias.weight").get_shape()
    assert shape == [32, 12]
    (source / "model.safetensors").unlink()
    assert not {*GEOMETRIES} & {*TINY}


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match=r"none\.json cannot be read"):
        make_family_geometry(tmp_path / "m", "mpnet-geometry", tmp_path / "none.json")


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiny-mpnet", str(tmp_path / "m")]) == 0
    assert "Made tiny-mpnet" in capsys.readouterr().out
    gone = str(tmp_path / "no")
    assert main(["mpnet-geometry", str(tmp_path / "g"), "--tokenizer", gone]) == 3
    assert "error: " in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main(["mpnet-geometry", str(tmp_path / "g")])
