"""nomic-bert's two spellings of a configuration, and its angles."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from export_onnx import export
from make_families import TINY, make_family
from nomic import frequencies, read_config, rotations

if TYPE_CHECKING:
    from pathlib import Path

SPEC = TINY["tiny-nomic-bert"]
OLDER = ("n_", "rotary_", "mlp_", "qkv_", "activation_function", "layer_norm_epsilon", "use_rms")
NEWER = ("hidden_", "num_", "rope_parameters", "intermediate_size", "max_position")


@pytest.mark.parametrize("left_out", ["older", "newer"])
def test_either_spelling_alone_gives_the_same_graph(tmp_path: Path, left_out: str) -> None:
    source = make_family(tmp_path / "source", SPEC.id)
    path = source / "config.json"
    both = export(source, SPEC, tmp_path / "both", precisions=["fp32"])
    config = json.loads(path.read_text())
    names = OLDER if left_out == "older" else NEWER
    kept = {k: v for k, v in config.items() if not k.startswith(names)}
    if left_out == "older":
        kept["max_position_embeddings"] = config["n_positions"]
    else:
        del kept["layer_norm_eps"]
    assert ("n_embd" in kept, "hidden_size" in kept) == (left_out == "newer", left_out == "older")
    path.write_text(json.dumps(kept))
    assert export(source, SPEC, tmp_path / "one", precisions=["fp32"]).files == both.files


def test_rotations_go_beyond_what_it_was_trained_on(tmp_path: Path) -> None:
    source = make_family(tmp_path / "source", SPEC.id)
    config = json.loads((source / "config.json").read_text())
    assert config["max_position_embeddings"] == 16
    assert read_config(source / "config.json", SPEC).places == 64


def test_frequencies_are_torchs_bit_by_bit(tmp_path: Path) -> None:
    """Of heads 64 wide; expected: 1 / 1000 ** (arange(0, 64, 2) / 64) as torch 2.13.0 gives it."""
    source = make_family(tmp_path / "source", SPEC.id)
    config = replace(read_config(source / "config.json", SPEC), hidden=256)
    assert [float(v).hex() for v in frequencies(config)[[1, 3, 7, 10, 31]]] == [
        "0x1.9c975a0000000p-1",
        "0x1.0bedde0000000p-1",
        "0x1.c3f06a0000000p-3",
        "0x1.d8ffac0000000p-4",
        "0x1.454dee0000000p-10",
    ]


def test_angles_are_place_times_frequency(tmp_path: Path) -> None:
    source = make_family(tmp_path / "source", SPEC.id)
    config = replace(read_config(source / "config.json", SPEC), positions=8192)
    cosines, sines = rotations(config)
    assert cosines.shape == sines.shape == (8192, 4)
    assert cosines.dtype == sines.dtype == np.float32
    assert cosines[0].tolist() == [1] * 4
    assert sines[0].tolist() == [0] * 4
    for place in (1, 47, 8191):
        for pair in range(4):
            angle = place * 1000 ** (-2 * pair / 8)
            # The angle is a float32: at 8191 half a step of it is 0.00025.
            assert cosines[place, pair] == pytest.approx(math.cos(angle), abs=1e-3)
            assert sines[place, pair] == pytest.approx(math.sin(angle), abs=1e-3)
