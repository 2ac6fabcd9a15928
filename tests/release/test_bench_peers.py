"""build/bench with real worker and server processes, on a tiny model. No figure is asserted."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from bench import engines, goals, guest, over_http, peers, servers
from bench.envs import REQUIREMENTS, ROOT, PeerError, clean_environment, prepare
from bench.models import BenchModel
from bench.texts import SETS, TextSet
from cortex_embed.kernels import INSTRUCTION_SETS, PHASES

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


@pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"},
    reason="the kernels read the processor's counter on x86 alone",
)
@pytest.mark.parametrize("precision", ["fp32", "int8", "int16"])
def test_the_profile_finds_the_linear_layers(
    precision: str, plan: engines.Plan, kernel_mean: Artifact, sets: dict[str, TextSet]
) -> None:
    about = {"artifact": str(kernel_mean.directory)}
    with engines.start(plan, "ours", "profile_ours") as worker:
        worker.ask("load", model=about, threads=2, options={"precision": precision})
        found = worker.ask("call", name="profile", arguments={"texts": str(sets["mixed"].path)})
    shares = {name: one["share"] for name, one in found["phases"].items()}
    assert tuple(shares) == PHASES
    assert sum(shares.values()) == pytest.approx(1)
    linear = sum(shares[name] for name in ("qkv", "output", "up", "down"))
    assert found["linear_share_of_time"] == pytest.approx(linear)
    assert 0 < linear < 1
    assert found["linear_gflops"] > 0
    assert found["instruction_set"] in INSTRUCTION_SETS
    # Only integers are rounded to.
    assert (shares["quantize"] > 0) == (precision != "fp32")


def test_a_model_without_kernels_has_no_profile(plan: engines.Plan, model: BenchModel) -> None:
    with (
        engines.start(plan, "ours", "profile_ours") as worker,
        pytest.raises(PeerError, match="do not run a model of its shape"),
    ):
        worker.ask("load", model=model.for_worker(), threads=1, options={"precision": "fp32"})


def test_ours_says_which_engine_ran_and_why(
    plan: engines.Plan, model: BenchModel, sets: dict[str, TextSet]
) -> None:
    chosen = [REFERENCE, peers.Engine("asked", "ours", "ours", {"engine": "onnxruntime"})]
    fallen, asked = engines.compare(replace(plan, rounds=1), model, chosen, sets)
    assert fallen.versions["engine"] == asked.versions["engine"] == "onnxruntime"
    assert fallen.versions["engine_reason"] == "hidden is 32, no multiple of 64"
    assert not asked.versions["engine_reason"]


def test_what_is_measured_is_this_checkouts(plan: engines.Plan) -> None:
    """Not an installed cortex-embed's, which may be another's."""
    python = prepare("ours", plan.envs)
    code = "import cortex_embed; print(cortex_embed.__file__)"
    done = subprocess.run(
        [python, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=clean_environment(1),
        cwd=plan.work,
    )
    assert done.stdout.strip() == str(ROOT / "app" / "cortex_embed" / "__init__.py")


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


def test_goals_find_their_rows() -> None:
    """Every name that a goal is computed of is a row, and ours are those that choose."""
    rows = {e.name: e.options for e in peers.engines()}
    for precision in ("fp32", "int8"):
        assert rows[f"cortex-embed {precision}"] == {"precision": precision}
        other = {"precision": precision, "engine": "onnxruntime"}
        assert rows[f"cortex-embed {precision}, ONNX Runtime"] == other
    outcomes = [
        engines.Outcome(
            name,
            [
                {
                    kind: {"texts_per_second": 1.0, "p50_ms": 1.0, "load": {"disturbed": False}}
                    for kind in (*SETS, "latency_short")
                }
            ],
            cosine={"short": {"min": 1.0, "mean": 1.0}},
        )
        for name in rows
    ]
    assert all(goal.value == 1.0 for goal in goals.of_engines(outcomes))


def test_our_servers_run_with_the_settings_of_the_row_in_process() -> None:
    found = [s for s in peers.servers() if s.is_ours]
    assert [s.name for s in found] == [f"cortex-embed {p}" for p in ("fp32", "int16", "int8")]
    assert [s.flags() for s in found] == [[f"--precision={p}"] for p in ("fp32", "int16", "int8")]
