"""Which models settings name, and that a service is made of them and of nothing else."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from cortex_embed.composition import build_service, locate_model, locate_models
from cortex_embed.config import Settings
from cortex_embed.domain import EmbedRequest
from cortex_embed.errors import ModelFileError, ModelNotFoundError, UsageError
from cortex_embed.kernels import best
from tests.models_fixtures import with_other_graph

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact


def test_one_name_is_one_model(tiny_mean: Artifact, tiny_cls: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_mean.directory, copy)
    mean, cls = str(tiny_mean.directory), str(tiny_cls.directory)
    assert [one.model.spec.id for one in locate_models(Settings(model=(mean, cls)))] == [
        "tiny-mean",
        "tiny-cls",
    ]
    with pytest.raises(UsageError, match="tiny-mean is named twice"):
        locate_models(Settings(model=(mean, cls, str(copy))))


def test_other_commands_mean_the_first(tiny_mean: Artifact, tiny_cls: Artifact) -> None:
    names = (str(tiny_cls.directory), str(tiny_mean.directory))
    service = build_service(Settings(model=names))
    assert [model.spec.id for model in service.models()] == ["tiny-cls"]


def test_nothing_is_hashed_before_it_is_loaded(tiny_mean: Artifact, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_mean.directory, copy)
    (copy / "model.onnx").write_bytes(b"damaged")
    found = locate_model(Settings(), str(copy))
    assert found.artifact is not None
    assert (
        found.model.fingerprint
        == locate_model(Settings(), str(tiny_mean.directory)).model.fingerprint
    )
    assert found.model.facts["fingerprint"] == found.model.fingerprint
    assert found.whence == str(copy)
    with pytest.raises(ModelNotFoundError):
        locate_model(Settings(), "nope")
    with pytest.raises(ModelFileError, match="no artifact directory"):
        locate_model(Settings(), str(tmp_path))


async def test_all_that_were_located_are_served_and_counted_together(tiny_mean: Artifact) -> None:
    settings = Settings(model=(str(tiny_mean.directory), "hash"), threads=1)
    service = build_service(settings, locate_models(settings))
    await service.load()
    for name in ("tiny-mean", "hash"):
        await service.prepare(name, 60)
        result = await service.embed(EmbedRequest(texts=("a", "b"), model=name))
        assert result.model.id == name
        assert result.fingerprint == service.served(name).fingerprint
    assert service.metrics.texts == 4
    assert await service.close()
    twice = Settings(model=("hash", "hash"))
    with pytest.raises(UsageError, match=r"hash is named twice \(computed, computed\)"):
        locate_models(twice)


def test_the_engine_is_announced_and_told_to_clients(
    kernel_mean: Artifact, kernel_sets: tuple[str, ...]
) -> None:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    name = str(kernel_mean.directory)
    for settings, engine in (
        (Settings(precision="int8"), "native"),
        (Settings(precision="fp32"), "native"),
        (Settings(), "native"),
        (Settings(engine="native"), "native"),
        (Settings(precision="int8", engine="onnxruntime"), "onnxruntime"),
    ):
        model = locate_model(settings, name).model
        instructions = best(model.facts["precision"], kernel_sets)
        reason = instructions if engine == "native" else ""
        assert (model.facts["engine"], model.facts["engine_reason"]) == (engine, reason)
        assert f"engine {engine}" in model.origin
    fingerprints = {
        locate_model(Settings(precision="int8", engine=engine), name).model.fingerprint
        for engine in ("native", "onnxruntime")
    }
    assert len(fingerprints) == 1


def test_int16_is_a_vector_space_of_its_own(
    kernel_mean: Artifact, kernel_sets: tuple[str, ...]
) -> None:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    name = str(kernel_mean.directory)
    models = [locate_model(Settings(precision=p), name).model for p in ("fp32", "int16", "int8")]
    assert [model.facts["precision"] for model in models] == ["fp32", "int16", "int8"]
    assert len({model.fingerprint for model in models}) == 3


def test_an_engine_that_cannot_be_had_by_name_is_an_error(tiny_mean: Artifact) -> None:
    with pytest.raises(UsageError, match="--engine native: tiny-mean cannot run on it: hidden is"):
        locate_model(Settings(engine="native"), str(tiny_mean.directory))
    with pytest.raises(UsageError, match="--engine onnxruntime: the model hash"):
        locate_model(Settings(engine="onnxruntime"), "hash")


async def test_clients_are_told_of_the_engine_that_computes_in_the_end(
    kernel_mean: Artifact, tmp_path: Path, kernel_sets: tuple[str, ...]
) -> None:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    with_other_graph(kernel_mean, tmp_path / "odd")
    settings = Settings(model=(str(tmp_path / "odd"),), precision="int8")
    service = build_service(settings)
    facts = service.models()[0].facts
    assert facts["engine"] == "native"
    await service.load()
    assert facts["engine"] == "onnxruntime"
    assert "where ours has Div" in facts["engine_reason"]
    assert (await service.embed(EmbedRequest(texts=("a",)))).tokens == 3
    assert await service.close()
