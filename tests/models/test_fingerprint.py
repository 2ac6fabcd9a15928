"""The fingerprint changes when what vectors depend on changes, and only then."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from cortex_embed.models.artifact import Artifact, FileFact, Graph
from cortex_embed.models.fingerprint import fingerprint, fingerprints, parts
from cortex_embed.models.repository import open_directory
from tests.hub import repository, write_repository
from tests.server.conftest import SPEC

if TYPE_CHECKING:
    from collections.abc import Callable

ARTIFACT = Artifact(
    directory=Path("anywhere"),
    spec=SPEC,
    graphs=(
        Graph("model.onnx", "model.onnx.data", "fp32", 24),
        Graph("model.compatible.onnx", "model.onnx.data", "fp32", 20),
        Graph("model.int8.onnx", "model.int8.onnx.data", "int8", 24),
    ),
    files={
        "model.onnx": FileFact(1, "a" * 64),
        "model.compatible.onnx": FileFact(1, "b" * 64),
        "model.onnx.data": FileFact(1, "c" * 64),
        "model.int8.onnx": FileFact(1, "d" * 64),
        "model.int8.onnx.data": FileFact(1, "e" * 64),
        "tokenizer.json": FileFact(1, "f" * 64),
    },
    sources={"model.safetensors": "1" * 64, "tokenizer.json": "2" * 64},
    manifest={},
)


def with_spec(**changes: Any) -> Artifact:
    return replace(ARTIFACT, spec=replace(SPEC, **changes))


def with_file(name: str) -> Artifact:
    return replace(ARTIFACT, files=ARTIFACT.files | {name: FileFact(1, "9" * 64)})


def with_source(name: str) -> Artifact:
    return replace(ARTIFACT, sources=ARTIFACT.sources | {name: "9" * 64})


def test_its_form() -> None:
    assert re.fullmatch(r"cx1:[0-9a-f]{16}", fingerprint(ARTIFACT, "fp32"))


@pytest.mark.parametrize(
    "changed",
    [
        with_spec(pooling="mean"),
        with_spec(normalize=False),
        with_spec(query_prefix="other: "),
        with_spec(document_prefix="passage: "),
        with_spec(max_tokens=17),
        with_source("model.safetensors"),
        with_source("tokenizer.json"),
    ],
)
def test_each_part_counts(changed: Artifact) -> None:
    assert fingerprint(changed, "fp32") != fingerprint(ARTIFACT, "fp32")


def test_precision_and_its_weights_count() -> None:
    assert fingerprint(ARTIFACT, "int8") != fingerprint(ARTIFACT, "fp32")
    requantized = with_file("model.int8.onnx.data")
    assert fingerprint(requantized, "int8") != fingerprint(ARTIFACT, "int8")
    assert fingerprint(requantized, "fp32") == fingerprint(ARTIFACT, "fp32")


@pytest.mark.parametrize(
    "same",
    [
        with_spec(id="other", repo="Other/Name", aliases=("x",), licence="mit", revision="1"),
        replace(ARTIFACT, directory=Path("elsewhere")),
        replace(ARTIFACT, manifest={"notes": "different"}),
        with_file("model.compatible.onnx"),  # another way to write the same sums
        replace(ARTIFACT, graphs=ARTIFACT.graphs[::-1]),
    ],
)
def test_nothing_else_counts(same: Artifact) -> None:
    for precision in ("fp32", "int8"):
        assert fingerprint(same, precision) == fingerprint(ARTIFACT, precision)


CHANGES: dict[str, Callable[[Any], Artifact]] = {
    "query_prefix": lambda value: with_spec(query_prefix=str(value)),
    "document_prefix": lambda value: with_spec(document_prefix=str(value)),
    "max_tokens": lambda value: with_spec(max_tokens=value),
}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(1, 5)), max_size=3),
    st.lists(st.tuples(st.sampled_from(sorted(CHANGES)), st.integers(1, 5)), max_size=3),
)
def test_equal_parts_and_equal_fingerprints_are_the_same(
    left: list[tuple[str, int]], right: list[tuple[str, int]]
) -> None:
    one, other = (
        replace(ARTIFACT, spec=replace(SPEC, **{
            name: getattr(CHANGES[name](value).spec, name) for name, value in changes
        }))
        for changes in (left, right)
    )  # fmt: skip
    same = parts(one, "fp32") == parts(other, "fp32")
    assert (fingerprint(one, "fp32") == fingerprint(other, "fp32")) is same


def test_weights_beside_a_published_graph_are_weights(tmp_path: Path) -> None:
    """The graph's own file is the same whatever lies beside it."""
    files = repository(external=True)
    one = open_directory(write_repository(tmp_path / "one", files))
    assert fingerprint(open_directory(write_repository(tmp_path / "two", files)), "fp32") == (
        fingerprint(one, "fp32")
    )
    files["onnx/model.onnx_data"] = bytes(len(files["onnx/model.onnx_data"]))
    other = open_directory(write_repository(tmp_path / "three", files))
    assert fingerprint(other, "fp32") != fingerprint(one, "fp32")
    files["config.json"] += b" "  # says nothing that the vectors depend on
    same = open_directory(write_repository(tmp_path / "four", files))
    assert fingerprint(same, "fp32") == fingerprint(other, "fp32")


def test_a_manifest_states_them(tiny_mean: Artifact) -> None:
    stated = tiny_mean.manifest["fingerprints"]
    assert stated == fingerprints(tiny_mean)
    assert set(stated) == {"fp32", "int8"}
