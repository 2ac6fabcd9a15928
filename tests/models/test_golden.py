"""Golden vectors: read, compared, and reproduced by what our exporter makes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cortex_embed.domain import Golden
from cortex_embed.errors import ModelFileError
from cortex_embed.models.catalogue import catalogue, find
from cortex_embed.models.golden import difference, goldens, read_goldens
from cortex_embed.vectors import l2_normalize
from tests.models_fixtures import DATA, MINILM, embed_directly

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact


def check(artifact: Artifact, known: tuple[Golden, ...], *, batch: int) -> None:
    pooled = embed_directly(artifact, [golden.text for golden in known], batch=batch)
    for golden, row in zip(known, pooled, strict=True):
        found = difference(golden, row)
        assert found <= golden.tolerance, f"{golden.text[:40]!r} ({golden.source}): {found:.2e}"


@pytest.mark.parametrize("name", ["tiny_cls", "tiny_mean", "bge_geometry"])
@pytest.mark.parametrize("batch", [1, 8])
def test_exported_models_reproduce_the_reference(
    name: str, batch: int, request: pytest.FixtureRequest
) -> None:
    artifact: Artifact = request.getfixturevalue(name)
    known = read_goldens(DATA / f"golden-{artifact.spec.id}.json")
    assert len(known) >= 8
    assert all(len(golden.vector) == artifact.spec.dimensions for golden in known)
    assert all(golden.tolerance == 1e-5 for golden in known)
    check(artifact, known, batch=batch)


@pytest.mark.real
@pytest.mark.parametrize("batch", [1, 16])
def test_minilm_reproduces_the_reference_and_what_others_publish(
    minilm_artifact: Artifact, batch: int
) -> None:
    known = goldens(MINILM)
    assert {"fastembed", "text-embeddings-inference"} <= {
        g.source.split("@")[0].split("/")[-1] for g in known
    }
    assert sum(len(g.vector) == 384 and g.tolerance == 1e-5 for g in known) >= 8
    check(minilm_artifact, known, batch=batch)


@pytest.mark.real
def test_minilm_gives_the_published_sums(minilm_artifact: Artifact) -> None:
    entry = find(MINILM)
    assert entry is not None
    assert entry.sum_check is not None
    vectors = l2_normalize(embed_directly(minilm_artifact, entry.sum_check.texts, batch=1))
    np.testing.assert_allclose(
        vectors.sum(axis=1), entry.sum_check.sums, rtol=0, atol=entry.sum_check.tolerance
    )


def test_a_model_without_goldens_of_ours_has_the_published_ones() -> None:
    assert goldens("bge-small") == next(
        e.goldens for e in catalogue() if e.spec.id == "bge-small-en-v1.5"
    )


def test_an_unknown_model_has_none() -> None:
    assert goldens("tiny-cls") == ()


def test_only_the_values_that_are_stated_are_compared() -> None:
    golden = Golden("x", (0.6, 0.8), tolerance=1e-6, source="by hand")
    assert difference(golden, np.array([0.6, 0.8, 0.0], np.float32)) < 1e-6
    assert difference(golden, np.array([6.0, 8.0, 0.0], np.float32)) < 1e-6  # normalized first
    assert difference(golden, np.array([0.6, 0.8, 1.0], np.float32)) > 0.1


def test_a_shortened_golden_is_shortened_before_it_is_normalized() -> None:
    golden = Golden("x", (0.6, 0.8), tolerance=1e-6, source="by hand", dimensions=2)
    assert difference(golden, np.array([3.0, 4.0, 100.0], np.float32)) < 1e-6


def test_a_vector_with_nan_never_passes() -> None:
    golden = Golden("x", (0.6, 0.8), tolerance=1.0, source="by hand")
    assert not difference(golden, np.array([np.nan, 0.8], np.float32)) <= golden.tolerance


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "`schema` must be 1"),
        ({"tolerance": "small"}, "`tolerance` must be a number"),
        ({"goldens": [{"text": "x", "vector": "???"}]}, "`vector` is damaged"),
        ({"goldens": [{"text": "x", "vector": "AAA="}]}, "`vector` is damaged"),
        ({"goldens": [{"text": "x"}]}, "`vector` is missing"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = tmp_path / "golden.json"
    whole = {"schema": 1, "tolerance": 1e-5, "source": "by hand", "goldens": []}
    path.write_text(json.dumps(whole | change), encoding="utf-8")
    with pytest.raises(ModelFileError) as caught:
        read_goldens(path)
    assert str(path) in caught.value.message
    assert words in caught.value.message


def test_a_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "golden.json"
    path.write_bytes(b"\xff")
    with pytest.raises(ModelFileError, match=r"golden\.json cannot be read"):
        read_goldens(path)
