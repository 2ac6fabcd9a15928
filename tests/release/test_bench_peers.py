"""build/bench with real worker and server processes, on a tiny model. No figure is asserted."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench import engines, guest, over_http, peers, servers
from bench.envs import REQUIREMENTS, PeerError
from bench.models import BenchModel
from bench.texts import TextSet

if TYPE_CHECKING:
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform == "win32", reason="the benchmark needs POSIX processes"),
]
REFERENCE = peers.Engine("reference", "ours", "ours", reference=True)
CONFIG = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}


@pytest.fixture
def plan(tmp_path: Path) -> engines.Plan:
    return engines.Plan(tmp_path, tmp_path / "envs", threads=1, rounds=2, quick=True)


@pytest.fixture
def model(tiny_mean: Artifact, tmp_path: Path) -> BenchModel:
    made = BenchModel(tiny_mean.spec, tmp_path / "model", CONFIG, {"onnx": "torch is ill"})
    shutil.copytree(tiny_mean.directory, made.artifact)
    made.hf.mkdir()
    shutil.copyfile(tiny_mean.tokenizer, made.hf / "tokenizer.json")
    return made


@pytest.fixture
def sets(tmp_path: Path) -> dict[str, TextSet]:
    made = {}
    for name in ("short", "passages", "mixed", "warmup"):
        texts = [f"the {name} dog {n}" for n in range(6)]
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(texts))
        made[name] = TextSet(name, path, texts, [5] * 6, "")
    return made


def test_peers_side_by_side(
    plan: engines.Plan, model: BenchModel, sets: dict[str, TextSet]
) -> None:
    chosen = [
        REFERENCE,
        peers.Engine("ort", "ours", "plain_ort", {"graph": "ours", "batch": 2}),
        peers.Engine("needy", "ours", "plain_ort", {"graph": "plain"}, needs=("onnx",)),
        peers.Engine("broken", "ours", "ours", {"no_such_setting": 1}),
    ]
    ours, ort, needy, broken = engines.compare(plan, model, chosen, sets)
    assert len(ours.rounds) == len(ort.rounds) == 2
    for found in (ours, ort):
        assert found.error is None
        assert all(c["min"] > 0.99999 for c in found.cosine.values())
        assert engines.median(found, "mixed", "texts_per_second")
        assert engines.median(found, "latency_short", "p50_ms")
        assert found.versions["onnxruntime"]
    assert needy.error == "no onnx file could be made: torch is ill"
    assert "no_such_setting" in str(broken.error)


def test_the_limit_is_measured(plan: engines.Plan) -> None:
    found = engines.peak(plan)
    assert found["fp32"] > 0
    assert found["int8"] > 0


def test_a_worker_that_dies_is_an_error(plan: engines.Plan) -> None:
    with (
        engines.start(plan, "ours", "no_such_worker") as worker,
        pytest.raises(PeerError, match="No module named"),
    ):
        worker.ask("load", model={}, threads=1, options={})


def test_an_unknown_operation_is_an_answer(plan: engines.Plan) -> None:
    with (
        engines.start(plan, "ours", "gemm") as worker,
        pytest.raises(PeerError, match="unknown operation"),
    ):
        worker.ask("dance")


def test_the_profile_finds_the_linear_layers(
    plan: engines.Plan, model: BenchModel, sets: dict[str, TextSet]
) -> None:
    with engines.start(plan, "ours", "profile_ours") as worker:
        worker.ask("load", model=model.for_worker(), threads=1, options={})
        found = worker.ask("call", name="profile", arguments={"texts": str(sets["mixed"].path)})
    assert sum(one["share"] for one in found["operators"].values()) == pytest.approx(1)
    assert found["linear_gflops"] > 0
    assert 0 < found["linear_share_of_time"] < 1


def ours() -> peers.Server:
    return next(s for s in peers.servers() if s.name == "cortex-embed fp32")


def test_servers_side_by_side(
    plan: engines.Plan,
    model: BenchModel,
    sets: dict[str, TextSet],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = (over_http.Scenario("2 clients", "short", 2, 1),)
    monkeypatch.setattr(over_http, "SCENARIOS", chosen)
    for name in ("short", "passages"):
        with engines.start(plan, "ours", "ours") as worker:
            worker.ask("load", model=model.for_worker(), threads=1, options={})
            file = engines.vectors_file(plan, model, "reference", name)
            worker.ask("encode", texts=str(sets[name].path), vectors=str(file))
    dead = peers.Server("dead", "ours", ("{python}", "-c", "raise SystemExit('no')"), "/")
    served = over_http.compare(plan, model, [ours(), dead], sets, "reference")
    assert served[0].error is None
    assert all(value > 0.99999 for value in served[0].cosine.values())
    assert over_http.median(served[0], "2 clients", "requests_per_second")
    assert served[0].rounds[0]["in process"]["64 clients"]["requests"] > 0
    assert "ended with status 1\nno" in str(served[1].error)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_and_soak(plan: engines.Plan, model: BenchModel, sets: dict[str, TextSet]) -> None:
    with servers.running(plan, model, ours()) as up:
        found: dict[str, Any] = guest.soak(up, sets["mixed"], minutes=0.04)
        assert (up.memory_mb("HWM") or 0) > 0
    assert found["requests"] > 0
    assert found["max_mb"] >= found["first_mb"] > 0
    assert np.isfinite(found["growth_last_half_mb"])


def test_every_peer_has_its_requirements_and_its_worker() -> None:
    from bench.envs import ROOT

    environments = {e.env for e in peers.engines()} | {s.env for s in peers.servers()}
    for name in environments - {"ours"}:
        assert (REQUIREMENTS / f"{name}.in").is_file(), name
    for engine in peers.engines():
        assert (ROOT / "build" / "bench" / "workers" / f"{engine.worker}.py").is_file()
    assert sum(e.reference for e in peers.engines()) == 1


def test_requirements_are_pinned_and_say_why_without_hashes() -> None:
    for file in REQUIREMENTS.glob("*.in"):
        lines = file.read_text(encoding="utf-8").splitlines()
        assert any("No hashes" in line for line in lines), file
        pins = [line for line in lines if line and not line.startswith("#")]
        assert all("==" in pin for pin in pins), file


def test_a_choice_of_peers_keeps_the_reference() -> None:
    names = [e.name for e in peers.engines(["openvino bf16"])]
    assert names == [
        "sentence-transformers fp32",
        "OpenVINO bf16",
        "OpenVINO bf16, tuned",
    ]
