from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from cortex_embed.errors import UsageError
from cortex_embed.models.artifact import FileFact
from cortex_embed.providers import memory
from cortex_embed.providers.engines import Chosen, EngineChoice

if TYPE_CHECKING:
    from cortex_embed.models.artifact import Artifact

MINILM = {"hidden": 384, "intermediate": 1536, "heads": 12, "max_tokens": 256}
RUN = partial(memory.run_bytes, MINILM)
MIB = 2**20


def test_a_run_grows_with_tokens_and_with_the_square_of_the_longest() -> None:
    sizes = ((256, 16), (256, 256), (512, 16))
    small, long, wide = (memory.run_bytes(MINILM, tokens, longest) for tokens, longest in sizes)
    assert small < long < wide


def test_plenty_of_room_changes_nothing() -> None:
    found = memory.fit(4096 * MIB, 200 * MIB, RUN, 256, workers=4, max_batch_tokens=256)
    assert found == memory.Fit(workers=4, max_batch_tokens=256)


@pytest.mark.parametrize("beside", [1, 2])
def test_little_room_means_fewer_and_smaller_runs(beside: int) -> None:
    room = memory.run_bytes(MINILM, 256, 256) * (2 + beside)
    limit = 200 * MIB + 24 * MIB + room
    found = memory.fit(limit, 200 * MIB, RUN, 256, workers=8, max_batch_tokens=4096, beside=beside)
    assert found.workers == 2
    used = (found.workers + beside) * memory.run_bytes(MINILM, found.max_batch_tokens, 256)
    assert used <= room


def test_too_little_says_how_much_it_takes() -> None:
    with pytest.raises(UsageError, match="100 MiB is too little; this model needs") as why:
        memory.fit(100 * MIB, 200 * MIB, RUN, 256, workers=1, max_batch_tokens=256)
    needed = int(why.value.message.split("needs ")[1].split(" MiB")[0])
    found = memory.fit(needed * MIB, 200 * MIB, RUN, 256, workers=1, max_batch_tokens=256)
    assert found.workers == 1


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_resident_memory_is_seen_and_given_back() -> None:
    memory.give_back()  # what earlier tests have left would be used again
    before = memory.resident()
    assert before is not None
    blocks = [np.ones(20_000) for _ in range(1000)]  # 160 MB in pieces that glibc keeps
    peak = memory.resident()
    assert peak is not None
    assert peak - before > 100 * MIB
    del blocks
    assert memory.give_back()
    after = memory.resident()
    assert after is not None
    assert after - before < 40 * MIB


def test_a_state_takes_more_than_its_json() -> None:
    import orjson

    rows = (np.random.RandomState(0).standard_normal((50, 384)) / 1e3).astype(np.float32)
    text = orjson.dumps(rows, option=orjson.OPT_SERIALIZE_NUMPY)
    assert rows.nbytes + 2 * len(text) <= 50 * memory.state_bytes(384)


@pytest.mark.parametrize(
    ("file", "word", "limit"),
    [
        ("memory.max", "max", None),
        ("memory.max", "1073741824", 2**30),
        ("memory/memory.limit_in_bytes", "9223372036854771712", None),
        ("memory/memory.limit_in_bytes", "536870912", 2**29),
    ],
)
def test_the_cgroups_limit(tmp_path: Path, file: str, word: str, limit: int | None) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(word + "\n", encoding="ascii")
    assert memory.cgroup_limit(tmp_path) == limit


def test_no_cgroup_no_limit(tmp_path: Path) -> None:
    assert memory.cgroup_limit(tmp_path) is None


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own")
def test_threads_share_arenas() -> None:
    """In a process of its own: what it sets stays set."""
    code = "from cortex_embed.providers.memory import share_arenas; print(share_arenas())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "True"


def test_a_footprint_is_what_a_model_takes(tiny_mean: Artifact, minilm_artifact: Artifact) -> None:
    small, real = (memory.footprint(Chosen(a, "fp32")) for a in (tiny_mean, minilm_artifact))
    assert small.loaded < real.loaded == real.loading
    # Measured: 109 MiB with both sessions.
    assert 109 * MIB < real.loaded < 180 * MIB
    # 50 MiB measured.
    assert 50 * MIB < memory.footprint(Chosen(minilm_artifact, "int8")).loaded < real.loaded
    foreign = replace(
        minilm_artifact, graphs=tuple(replace(g, is_own=False) for g in minilm_artifact.graphs)
    )
    assert memory.footprint(Chosen(foreign, "fp32")).loading > 3 * 86 * MIB


def test_a_footprint_counts_token_states_before_anybody_asks(minilm_artifact: Artifact) -> None:
    without = memory.footprint(Chosen(minilm_artifact, "fp32")).loaded
    found = memory.footprint(Chosen(minilm_artifact, "fp32"), states=True)
    assert found.loaded == found.loading
    assert found.loaded - without > 42 * MIB  # 42 measured
    graphs = tuple(g for g in minilm_artifact.graphs if g.output == "text")
    none = replace(minilm_artifact, graphs=graphs)
    assert memory.footprint(Chosen(none, "fp32"), states=True).loaded == without


def test_the_default_model_alone_gives_token_states(
    tiny_mean: Artifact, minilm_artifact: Artifact
) -> None:
    room = memory.footprint(Chosen(minilm_artifact, "fp32")).loading
    first, second = Chosen(minilm_artifact, "fp32"), Chosen(tiny_mean, "fp32")
    assert memory.shared([second, first], 0, room) == (room, 0)
    with pytest.raises(UsageError, match="--max-models-memory"):
        memory.shared([first, second], 0, room)


def test_weights_beside_a_graph_of_others_count(tiny_mean: Artifact) -> None:
    """bge-m3's graph has 0.7 MB, and 2.3 GB in the file beside it."""
    graph = replace(tiny_mean.graphs[0], is_own=False, data=tiny_mean.graphs[0].file)
    files = {
        "tokenizer.json": tiny_mean.files["tokenizer.json"],
        graph.file: FileFact(700_000, "0" * 64),
        "model.onnx_data": FileFact(2_000 * MIB, "0" * 64),
    }
    foreign = replace(tiny_mean, graphs=(graph,), files=files)
    found = memory.footprint(Chosen(foreign, "fp32"))
    assert found.loaded > 1.5 * 2_000 * MIB
    assert found.loading > 3 * 2_000 * MIB


def test_the_native_engine_takes_what_its_kernels_say(
    minilm_artifact: Artifact, kernel_sets: tuple[str, ...]
) -> None:
    if not kernel_sets:
        pytest.skip("this processor has none of the instruction sets")
    native = EngineChoice("native")
    run = memory.runs(Chosen(minilm_artifact, "int8", native))
    assert 0 < run(16, 16) < run(256, 16) < run(256, 256) < run(512, 256)
    assert run(256, 256) < 64 * MIB
    found = memory.fit(4096 * MIB, 200 * MIB, run, 256, workers=4, max_batch_tokens=1024)
    assert found == memory.Fit(workers=4, max_batch_tokens=1024)
    little = memory.within(run(300, 256) * 3, run, 256, workers=2, max_batch_tokens=1024)
    assert (little.workers, little.max_batch_tokens) == (2, 300)
    for precision in ("int8", "fp32", "int16"):
        size = memory.footprint(Chosen(minilm_artifact, precision, native))
        other = memory.footprint(Chosen(minilm_artifact, precision))
        assert size.loaded < size.loading
        assert size.loaded < other.loaded
        states = memory.footprint(Chosen(minilm_artifact, precision, native), states=True)
        assert states.loaded > size.loaded


def test_several_models_share_the_process(tiny_mean: Artifact, minilm_artifact: Artifact) -> None:
    both = [Chosen(tiny_mean, "fp32"), Chosen(minilm_artifact, "fp32")]
    assert memory.shared(both, 0, 0) == (0, 0)
    assert memory.shared(both, 0, 300 * MIB) == (300 * MIB, 0)
    bound, share = memory.shared(both, 1024 * MIB, 0)
    assert bound == 512 * MIB
    assert 0 < 2 * share < 512 * MIB
    bound, more = memory.shared(both, 1024 * MIB, 300 * MIB)
    assert (bound, more > share) == (300 * MIB, True)


@pytest.mark.parametrize(
    ("limit", "models", "says"),
    [
        (0, 100 * MIB, "--max-models-memory: 100 MiB is too little"),
        (200 * MIB, 0, "--max-models-memory: 100 MiB .half of --max-memory. is too little"),
        (300 * MIB, 250 * MIB, "--max-memory: 300 MiB is too little for 2 models"),
    ],
)
def test_too_little_for_several_says_how_much_it_takes(
    limit: int, models: int, says: str, tiny_mean: Artifact, minilm_artifact: Artifact
) -> None:
    both = [Chosen(tiny_mean, "fp32"), Chosen(minilm_artifact, "fp32")]
    with pytest.raises(UsageError, match=says) as why:
        memory.shared(both, limit, models)
    (needed,) = re.findall(r"(?:needs|takes) (\d+) MiB", why.value.message)
    if "needs" in why.value.message:
        memory.shared(both, 0, int(needed) * MIB)
    else:
        memory.shared(both, int(needed) * MIB, models)
