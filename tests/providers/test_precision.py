from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from cortex_embed.errors import ModelFileError
from cortex_embed.kernels import INSTRUCTION_SETS
from cortex_embed.providers.precision import choose

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

FAST = frozenset({"AVX512VNNI"})


def gated(artifact: Artifact, *, passed: object) -> Artifact:
    gates = {"int8": {"passed": passed}}
    return replace(artifact, manifest=artifact.manifest | {"gates": gates})


@pytest.mark.parametrize("one", INSTRUCTION_SETS)
def test_auto_takes_int8_after_a_passed_gate_wherever_our_kernels_run(
    kernel_mean: Artifact, one: str
) -> None:
    choice = choose("auto", gated(kernel_mean, passed=True), features=frozenset(), sets=[one])
    assert (choice.precision, "passed" in choice.reason) == ("int8", True)


def test_auto_takes_int8_for_onnx_runtime_on_a_fast_processor(kernel_mean: Artifact) -> None:
    gated_one = gated(kernel_mean, passed=True)
    choice = choose("auto", gated_one, "onnxruntime", features=FAST)
    assert (choice.precision, "AVX512VNNI" in choice.reason) == ("int8", True)
    # The kernels do not run there, and ONNX Runtime takes their place.
    assert choose("auto", gated_one, features=FAST, sets=[]) == choice


@pytest.mark.parametrize("passed", [False, None, "true", 1])
def test_auto_never_takes_int8_without_a_passed_gate(tiny_mean: Artifact, passed: object) -> None:
    choice = choose("auto", gated(tiny_mean, passed=passed), features=FAST)
    assert (choice.precision, "gate" in choice.reason) == ("fp32", True)


def test_auto_takes_fp32_for_onnx_runtime_on_a_slow_processor(tiny_mean: Artifact) -> None:
    slow = frozenset({"AVX2"})
    choice = choose("auto", gated(tiny_mean, passed=True), "onnxruntime", features=slow)
    assert (choice.precision, "dot product" in choice.reason) == ("fp32", True)


def test_auto_takes_what_there_is(tiny_mean: Artifact) -> None:
    for precision in ("fp32", "int8"):
        graphs = tuple(g for g in tiny_mean.graphs if g.precision == precision)
        assert (
            choose("auto", replace(tiny_mean, graphs=graphs), features=FAST).precision == precision
        )


@pytest.mark.parametrize("asked", ["fp32", "int16", "int8"])
def test_a_choice_by_name_stands(tiny_mean: Artifact, asked: str) -> None:
    assert choose(asked, gated(tiny_mean, passed=True), features=frozenset()).precision == asked


def test_int8_by_name_without_a_gate_is_said(tiny_mean: Artifact) -> None:
    assert "not passed" in choose("int8", gated(tiny_mean, passed=False), features=FAST).reason


def test_a_precision_that_is_not_there_is_an_error(tiny_mean: Artifact) -> None:
    graphs = tuple(g for g in tiny_mean.graphs if g.precision == "fp32")
    with pytest.raises(ModelFileError, match=r"--precision int8: .* has fp32\."):
        choose("int8", replace(tiny_mean, graphs=graphs))
    graphs = tuple(g for g in tiny_mean.graphs if g.precision == "int8")
    with pytest.raises(ModelFileError, match=r"int16: .* has int8, and int16 is made of fp32\."):
        choose("int16", replace(tiny_mean, graphs=graphs))
