"""What Ollama's clients are told of the models: golden bodies, with and without a manifest."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from cortex_embed.errors import InvalidRequestError
from cortex_embed.wire import ollama_models

if TYPE_CHECKING:
    from cortex_embed.domain import ModelSpec
    from cortex_embed.wire.ollama_models import Served


@dataclass(frozen=True)
class Model:
    spec: ModelSpec
    created: int = 1_761_500_000
    facts: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = "cx1:0123456789abcdef"


FACTS = {
    "parameters": 33_360_000,
    "precision": "int8",
    "graphs": [
        {"file": "model.onnx", "data": "model.onnx.data", "precision": "fp32"},
        {"file": "model.int8.onnx", "data": "model.int8.onnx.data", "precision": "int8"},
    ],
    "files": {
        "model.onnx": {"size": 5, "sha256": "a" * 64},
        "model.onnx.data": {"size": 4000, "sha256": "b" * 64},
        "model.int8.onnx": {"size": 6, "sha256": "c" * 64},
        "model.int8.onnx.data": {"size": 1000, "sha256": "d" * 64},
        "tokenizer.json": {"size": 70, "sha256": "e" * 64},
    },
}
DETAILS = {
    "parent_model": "",
    "format": "onnx",
    "family": "bert",
    "families": ["bert"],
    "parameter_size": "33M",
    "quantization_level": "I8",
}


@pytest.fixture
def model(spec: ModelSpec) -> Model:
    return Model(replace(spec, aliases=("maker/small", "small:v1", "tiny")), facts=FACTS)


def digest_of(model: Served) -> str:
    (first, *_) = json.loads(ollama_models.encode_tags([model]))["models"]
    found: str = first["digest"]
    return found


def test_golden_tags(model: Model) -> None:
    """Every name with its tag, once; only the files of the served precision are counted."""
    listing = json.loads(ollama_models.encode_tags([model]))
    rows = [
        {
            "name": name,
            "model": name,
            "modified_at": "2025-10-26T17:33:20Z",
            "size": 1076,
            "digest": digest_of(model),
            "details": DETAILS,
        }
        for name in ("tiny:latest", "maker/small:latest", "small:v1")
    ]
    assert listing == {"models": rows}


def test_every_listed_name_is_answered_to(model: Model) -> None:
    for row in json.loads(ollama_models.encode_tags([model]))["models"]:
        assert model.spec.answers_to(row["name"])


def test_the_digest_is_of_the_vectors(model: Model) -> None:
    assert re.fullmatch("[0-9a-f]{64}", digest_of(model))
    renamed = replace(model, created=5, spec=replace(model.spec, id="other"))
    assert digest_of(renamed) == digest_of(model)
    assert digest_of(replace(model, fingerprint="cx1:f")) != digest_of(model)
    nameless = replace(model, fingerprint="")
    later = replace(nameless, spec=replace(model.spec, revision="1"))
    assert digest_of(nameless) != digest_of(later)


def test_golden_loaded(model: Model) -> None:
    assert json.loads(ollama_models.encode_loaded([model])) == {
        "models": [
            {
                "name": "tiny:latest",
                "model": "tiny:latest",
                "size": 1076,
                "digest": digest_of(model),
                "details": DETAILS,
                "expires_at": "2200-01-01T00:00:00Z",
                "size_vram": 0,
                "context_length": 8,
            }
        ]
    }
    assert ollama_models.encode_loaded([]) == b'{"models":[]}'


def test_golden_show(model: Model) -> None:
    assert json.loads(ollama_models.encode_model(model)) == {
        "license": "MIT",
        "modelfile": "",
        "parameters": "",
        "template": "",
        "details": DETAILS,
        "model_info": {
            "general.architecture": "bert",
            "general.parameter_count": 33_360_000,
            "bert.context_length": 8,
            "bert.embedding_length": 3,
            "bert.pooling_type": 2,
        },
        "capabilities": ["embedding"],
        "modified_at": "2025-10-26T17:33:20Z",
    }


@pytest.mark.parametrize(("pooling", "number"), [("mean", 1), ("cls", 2), ("last_token", 3)])
def test_pooling(spec: ModelSpec, pooling: Any, number: int) -> None:
    shown = json.loads(ollama_models.encode_model(Model(replace(spec, pooling=pooling))))
    assert shown["model_info"]["bert.pooling_type"] == number


@pytest.mark.parametrize(
    ("parameters", "shown"),
    [(None, ""), (22_713_216, "23M"), (600_000, "1M"), (1_543_000_000, "1.5B")],
)
def test_parameter_size(spec: ModelSpec, parameters: int | None, shown: str) -> None:
    facts = {} if parameters is None else {"parameters": parameters}
    model = Model(spec, facts=facts)
    assert json.loads(ollama_models.encode_model(model))["details"]["parameter_size"] == shown


def test_without_a_manifest_nothing_is_made_up(spec: ModelSpec) -> None:
    bare = Model(spec)
    (row,) = json.loads(ollama_models.encode_tags([bare]))["models"]
    assert row["size"] == 0
    assert row["details"]["quantization_level"] == "F32"
    assert (
        "general.parameter_count" not in json.loads(ollama_models.encode_model(bare))["model_info"]
    )
    lines = ollama_models.encode_pulled(bare, stream=True).splitlines()
    assert [json.loads(line)["status"] for line in lines] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]


def test_golden_pull(model: Model) -> None:
    """A line for each file of the precision in use, the largest first, all of them complete."""
    body = ollama_models.encode_pulled(model, stream=True)
    assert body.endswith(b"\n")
    files = [("d" * 64, 1000), ("e" * 64, 70), ("c" * 64, 6)]
    assert [json.loads(line) for line in body.splitlines()] == [
        {"status": "pulling manifest"},
        *(
            {
                "status": f"pulling {digest[:12]}",
                "digest": f"sha256:{digest}",
                "total": size,
                "completed": size,
            }
            for digest, size in files
        ),
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]
    assert json.loads(ollama_models.encode_pulled(model, stream=False)) == {"status": "success"}


def test_version_is_one_that_clients_can_compare() -> None:
    version = json.loads(ollama_models.encode_version())
    assert set(version) == {"version"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", version["version"])


def test_dates_are_readable(model: Model) -> None:
    assert datetime.fromisoformat(ollama_models.NEVER).year == 2200
    shown = json.loads(ollama_models.encode_model(model))
    assert datetime.fromisoformat(shown["modified_at"]).timestamp() == model.created


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"model": "m"}, "m"),
        ({"name": "m"}, "m"),
        ({"model": "m", "name": "other"}, "m"),
        ({"model": "", "name": "m", "verbose": True}, "m"),
        ({"model": "m", "name": None, "stream": None}, "m"),
    ],
)
def test_both_spellings_of_the_model(fields: dict[str, Any], name: str) -> None:
    body = json.dumps(fields).encode()
    assert ollama_models.decode_model(body, served="tiny") == name
    assert ollama_models.decode_pull(body, served="tiny") == (name, True)


@pytest.mark.parametrize(("told", "meant"), [(True, True), (False, False), (None, True)])
def test_a_pull_streams_unless_told_otherwise(told: bool | None, meant: bool) -> None:
    body = json.dumps({"model": "m", "stream": told}).encode()
    assert ollama_models.decode_pull(body, served="tiny") == ("m", meant)


@pytest.mark.parametrize("decode", [ollama_models.decode_model, ollama_models.decode_pull])
@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", 'The body is empty; send JSON such as {"model": "tiny"}.'),
        (b"{}", 'model is required; add "model": "tiny"'),
        (b'{"model": 5}', "model: got a number; model must be the name of a served model"),
        (b'{"name": []}', "name: got a list; name must be the same"),
        (b"[]", "not a list"),
    ],
)
def test_wrong_bodies(decode: Any, body: bytes, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(says)):
        decode(body, served="tiny")


def test_stream_must_be_a_boolean() -> None:
    with pytest.raises(InvalidRequestError, match="stream: got a string; stream must be false"):
        ollama_models.decode_pull(b'{"model": "m", "stream": "no"}', served="tiny")
