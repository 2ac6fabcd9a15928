"""Which engine runs a model, why, and what happens where it cannot."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from cortex_embed.errors import ModelFileError, UsageError
from cortex_embed.providers import engines
from cortex_embed.providers.engine import Engine
from cortex_embed.providers.engines import Chosen, EngineChoice, choose, make
from cortex_embed.providers.native_engine import NativeEngine
from tests.models_fixtures import with_other_graph

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

SETS = ("AVX-512", "AVX2")


@pytest.fixture
def odd(kernel_mean: Artifact, tmp_path: Path) -> Artifact:
    return with_other_graph(kernel_mean, tmp_path / "odd")


def changed(artifact: Artifact, **facts: Any) -> Artifact:
    return replace(artifact, manifest=artifact.manifest | facts)


@pytest.mark.parametrize("precision", ["fp32", "int8", "int16"])
def test_auto_takes_native_in_the_best_set(kernel_mean: Artifact, precision: str) -> None:
    choice = choose("auto", kernel_mean, precision, SETS)
    assert choice == EngineChoice("native", "AVX-512")
    assert str(choice) == "engine native: AVX-512"


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_choice_by_name_stands(kernel_mean: Artifact, precision: str) -> None:
    assert choose("native", kernel_mean, precision, SETS) == EngineChoice("native", "AVX-512", True)
    choice = choose("onnxruntime", kernel_mean, precision, SETS)
    assert choice == EngineChoice("onnxruntime", "", True)
    assert str(choice) == "engine onnxruntime"


def test_what_the_kernels_are_not_made_for(kernel_mean: Artifact) -> None:
    foreign = tuple(replace(graph, is_own=False) for graph in kernel_mean.graphs)
    spec = kernel_mean.spec
    for artifact, sets, says in (
        (replace(kernel_mean, graphs=foreign), SETS, "the graph is the repository's own"),
        (replace(kernel_mean, spec=replace(spec, family="mpnet")), SETS, "this is mpnet"),
        (replace(kernel_mean, spec=replace(spec, pooling="last_token")), SETS, "not last_token"),
        (changed(kernel_mean, hidden=96), SETS, "hidden is 96, no multiple of 64"),
        (changed(kernel_mean, intermediate=130), SETS, "intermediate is 130, no multiple of 64"),
        (changed(kernel_mean, heads=4), SETS, "4 heads share 64 channels"),
        (kernel_mean, (), "this processor has none of AVX2"),
    ):
        choice = choose("auto", artifact, "int8", sets)
        assert (choice.name, says in choice.reason) == ("onnxruntime", True), choice
        with pytest.raises(UsageError, match=r"--engine native: .*Leave --engine out") as caught:
            choose("native", artifact, "int8", sets)
        assert says in caught.value.message


def test_int16_is_the_native_engines_alone(kernel_mean: Artifact) -> None:
    with pytest.raises(UsageError, match=r"--engine onnxruntime: .* in int16, .*--precision fp32"):
        choose("onnxruntime", kernel_mean, "int16", SETS)
    for asked in ("auto", "native"):
        with pytest.raises(UsageError, match=r"--precision int16: .*none of AVX2.*--precision fp"):
            choose(asked, kernel_mean, "int16", ())


def test_int16_never_falls_back(odd: Artifact) -> None:
    """To fp32 it would be another vector space, under int16's fingerprint."""
    stored = tuple(replace(g, precision="fp32") for g in odd.graphs if g.precision == "int8")
    chosen = Chosen(replace(odd, graphs=stored), "int16", EngineChoice("native", "AVX2"))
    with pytest.raises(ModelFileError, match=r"--precision int16: only the native engine"):
        make(chosen, 1, unexpected)


def test_without_a_library_it_is_onnx_runtime(
    kernel_mean: Artifact, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from cortex_embed import kernels

    monkeypatch.setattr(kernels, "library_path", lambda: tmp_path / "cortex-kernels-here.so")
    kernels.supported.cache_clear()
    choice = choose("auto", kernel_mean, "int8")
    assert choice.name == "onnxruntime"
    assert choice.reason == "there is no cortex-kernels-here.so, the kernels for this platform"


def test_this_machine_decides_where_no_sets_are_given(
    kernel_mean: Artifact, kernel_sets: tuple[str, ...]
) -> None:
    best = next(iter(kernel_sets), None)
    choice = choose("auto", kernel_mean, "int8")
    assert choice.name == ("onnxruntime" if best is None else "native")
    assert best is None or choice.reason == best


def unexpected(_chosen: Chosen) -> None:
    raise AssertionError("it fell back")


@pytest.mark.parametrize("name", ["native", "onnxruntime"])
def test_the_engine_that_was_chosen_is_made(
    name: engines.Name, kernel_mean: Artifact, kernel_sets: tuple[str, ...]
) -> None:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    made = make(Chosen(kernel_mean, "int8", EngineChoice(name)), 1, unexpected)
    assert isinstance(made, NativeEngine if name == "native" else Engine)


def test_a_graph_of_another_kind_falls_back_aloud(
    odd: Artifact, caplog: pytest.LogCaptureFixture, kernel_sets: tuple[str, ...]
) -> None:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    told: list[Chosen] = []
    chosen = Chosen(odd, "int8", EngineChoice("native", "AVX2"))
    with caplog.at_level(logging.WARNING):
        assert isinstance(make(chosen, 1, told.append), Engine)
    (fallback,) = told
    assert fallback.engine.name == "onnxruntime"
    assert "where ours has" in fallback.engine.reason
    assert "the native engine cannot run its graph" in caplog.text
    by_name = chosen._replace(engine=EngineChoice("native", "AVX2", by_name=True))
    with pytest.raises(ModelFileError, match=r"--engine native: .*Leave --engine out"):
        make(by_name, 1, unexpected)
