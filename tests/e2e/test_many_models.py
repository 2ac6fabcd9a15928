"""Several models in one real process: who is loaded, right vectors, memory there and back."""

from __future__ import annotations

import re
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import psutil
import pytest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cortex_embed.models.artifact import Artifact
    from tests.e2e.conftest import Serve
    from tests.e2e.process import Client, Served

pytestmark = pytest.mark.e2e
MIB = 2**20
TEXTS = ["hello world", "the quick brown fox jumps over the lazy dog " * 20, "naïve café"]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is given back by glibc only")


def flags(others: Sequence[Artifact], *more: str) -> list[str]:
    return [*(part for one in others for part in ("--model", str(one.directory))), *more]


def loads(served: Served, model: Artifact) -> int:
    return len(re.findall(rf"Loading {re.escape(model.spec.id)} …", served.stderr))


def loaded(client: Client) -> dict[str, bool]:
    return {one["id"]: one["loaded"] for one in client.get("/v1/models").json["data"]}


def resident(served: Served) -> int:
    """Bytes of all its processes: a one-file program's bootloader is beside the server."""
    outer = psutil.Process(served.process.pid)
    return sum(one.memory_info().rss for one in (outer, *outer.children(recursive=True)))


def alone(serve: Serve, models: Sequence[Artifact]) -> dict[str, list[list[float]]]:
    """The vectors of TEXTS by model id, each from a server of that model alone."""
    found = {}
    for model in models:
        served = serve(model, "--threads", "2")
        found[model.spec.id] = served.ready().embed(TEXTS)
        served.close()
    return found


def test_a_hundred_first_requests_are_one_load(
    serve: Serve, tiny_mean: Artifact, minilm_artifact: Artifact
) -> None:
    served = serve(tiny_mean, *flags([minilm_artifact], "--load-wait", "20s"))
    client = served.ready()
    assert loaded(client) == {"tiny-mean": True, minilm_artifact.spec.id: False}
    with ThreadPoolExecutor(100) as pool:
        vectors = list(
            pool.map(lambda _: client.embed(["x"], model=minilm_artifact.spec.id), range(100))
        )
    assert all(one == vectors[0] for one in vectors)
    assert loads(served, minilm_artifact) == 1
    assert loaded(client) == {"tiny-mean": True, minilm_artifact.spec.id: True}


@on_linux
@pytest.mark.real
def test_alternating_models_stay_within_the_bound_and_give_their_own_vectors(
    serve: Serve,
    minilm_artifact: Artifact,
    bge_geometry: Artifact,
    tiny_mean: Artifact,
) -> None:
    """Room for one of the two large ones: 161 and 226 MiB by their estimates."""
    bound = 240
    models = (minilm_artifact, tiny_mean, bge_geometry)
    expected = alone(serve, models)
    served = serve(
        tiny_mean,
        *flags([minilm_artifact, bge_geometry], "--load-wait", "30s", "--threads", "2"),
        *("--max-models-memory", f"{bound}MiB"),
    )
    client = served.ready()
    base = resident(served)
    highest = 0
    for _ in range(4):
        for model in models:
            assert client.embed(TEXTS, model=model.spec.id) == expected[model.spec.id]
            time.sleep(0.4)  # the second session of each is made meanwhile
            highest = max(highest, resident(served))
    assert loads(served, minilm_artifact) == 4
    assert highest - base < bound * MIB
    with ThreadPoolExecutor(9) as pool:  # all at once: whoever has to wait gets its own as well
        names = [one.spec.id for one in models] * 6
        for name, vectors in zip(
            names, pool.map(lambda name: client.embed(TEXTS, model=name), names), strict=True
        ):
            assert np.allclose(vectors, expected[name], atol=1e-5)
    assert resident(served) - base < bound * MIB


@on_linux
@pytest.mark.real
def test_an_unused_model_goes_and_its_memory_with_it(
    serve: Serve, tiny_mean: Artifact, bge_geometry: Artifact
) -> None:
    served = serve(
        tiny_mean,
        *flags([bge_geometry], "--load-wait", "30s", "--model-idle", "1s", "--threads", "2"),
    )
    client = served.ready()
    client.embed(TEXTS)
    taken = []
    for _ in range(3):
        before = resident(served)
        client.embed(TEXTS, model=bge_geometry.spec.id)
        time.sleep(0.6)
        full = resident(served)
        deadline = time.monotonic() + 20
        while loaded(client)[bge_geometry.spec.id]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(0.3)  # unloading is under way
        taken.append((full - before, resident(served) - before))
    assert loads(served, bge_geometry) == 3
    assert loaded(client)["tiny-mean"]
    # Not the first round: libraries grow with their first use.
    for full_growth, left in taken[1:]:
        assert full_growth > 100 * MIB, taken
        assert left < 25 * MIB, taken


def test_a_damaged_model_harms_no_other_and_is_tried_again(
    serve: Serve, tiny_mean: Artifact, tiny_cls: Artifact, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_cls.directory, copy)
    graph = copy / "model.onnx"
    intact = graph.read_bytes()
    graph.write_bytes(intact[:-1] + b"\0")
    served = serve(tiny_mean, "--model", str(copy), "--load-wait", "20s")
    client = served.ready()
    reply = client.post("/v1/embeddings", {"model": "tiny-cls", "input": "x"})
    assert reply.status == 500
    assert reply.json["error"]["code"] == "model_load_failed"
    assert str(copy) not in reply.body.decode()
    served.wait_for(re.escape(str(graph)))  # the log says which file
    assert len(client.embed(["x"])[0]) == 32
    graph.write_bytes(intact)
    assert len(client.embed(["x"], model="tiny-cls")[0]) == 32


def test_names_of_no_model_and_of_two(
    serve: Serve, tiny_mean: Artifact, tiny_cls: Artifact
) -> None:
    client = serve(tiny_mean, *flags([tiny_cls])).ready()
    reply = client.post("/embed", {"texts": ["x"], "model": "bge-m3"})
    assert reply.status == 404
    assert b"Served: tiny-mean, tiny-cls. To serve another" in reply.body
    assert client.get("/model_info?model=tiny-cls").json["id"] == "tiny-cls"
    assert client.get("/model_info").json["id"] == "tiny-mean"
    twice = serve(tiny_mean, *flags([tiny_mean]))
    assert twice.exit_code() == 2
    assert "tiny-mean is named twice" in twice.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.real
def test_a_stop_during_a_load(serve: Serve, tiny_mean: Artifact, bge_geometry: Artifact) -> None:
    served = serve(tiny_mean, *flags([bge_geometry], "--load-wait", "20s"))
    client = served.ready()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(client.post, "/embed", {"texts": ["x"], "model": bge_geometry.spec.id})
        served.wait_for("Loading bge-geometry")
        began = time.monotonic()
        served.signal()
        assert served.exit_code() == 0
        assert time.monotonic() - began < 5
        reply = asking.result()
    assert reply.status in {200, 503}
    assert reply.status == 200 or reply.headers["X-Phase"] == "draining"
    assert "Traceback" not in served.stderr


@pytest.mark.real
def test_too_little_memory_for_one_of_them_is_said_at_the_start(
    serve: Serve, tiny_mean: Artifact, minilm_artifact: Artifact
) -> None:
    served = serve(tiny_mean, *flags([minilm_artifact], "--max-models-memory", "100MiB"))
    assert served.exit_code() == 2
    assert "--max-models-memory: 100 MiB is too little; the largest" in served.stderr


@on_linux
@pytest.mark.real
def test_max_memory_holds_for_several_models_at_work(
    serve: Serve, minilm_artifact: Artifact, bge_geometry: Artifact, tiny_mean: Artifact
) -> None:
    served = serve(
        tiny_mean,
        *flags([minilm_artifact, bge_geometry], "--load-wait", "60s"),
        *("--max-memory", "500MiB", "--max-batch-tokens", "65536"),
    )
    client = served.ready()
    ids = [one.spec.id for one in (minilm_artifact, tiny_mean, bge_geometry)]
    highest = 0
    with ThreadPoolExecutor(3) as pool:
        asking = [
            pool.submit(client.embed, ["the quick brown fox " * 60] * 32, model=name)
            for name in ids * 2
        ]
        while not all(one.done() for one in asking):
            highest = max(highest, resident(served))
            time.sleep(0.02)
        assert all(len(one.result()) == 32 for one in asking)
    assert highest < 500 * MIB
