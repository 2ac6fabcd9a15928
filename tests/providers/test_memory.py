from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cortex_embed.errors import UsageError
from cortex_embed.providers import memory

MINILM = {"hidden": 384, "intermediate": 1536, "heads": 12, "max_tokens": 256}
MIB = 2**20


def test_a_run_grows_with_tokens_and_with_the_square_of_the_longest() -> None:
    sizes = ((256, 16), (256, 256), (512, 16))
    small, long, wide = (memory.run_bytes(MINILM, tokens, longest) for tokens, longest in sizes)
    assert small < long < wide


def test_plenty_of_room_changes_nothing() -> None:
    found = memory.fit(4096 * MIB, 200 * MIB, MINILM, workers=4, max_batch_tokens=256)
    assert found == memory.Fit(workers=4, max_batch_tokens=256)


def test_little_room_means_fewer_and_smaller_runs() -> None:
    room = memory.run_bytes(MINILM, 256, 256) * 3
    limit = 200 * MIB + 24 * MIB + room
    found = memory.fit(limit, 200 * MIB, MINILM, workers=8, max_batch_tokens=4096)
    assert found.workers == 2
    used = (found.workers + 1) * memory.run_bytes(MINILM, found.max_batch_tokens, 256)
    assert used <= room


def test_too_little_says_how_much_it_takes() -> None:
    with pytest.raises(UsageError, match="100 MiB is too little; this model needs") as why:
        memory.fit(100 * MIB, 200 * MIB, MINILM, workers=1, max_batch_tokens=256)
    needed = int(why.value.message.split("needs ")[1].split(" MiB")[0])
    assert memory.fit(needed * MIB, 200 * MIB, MINILM, workers=1, max_batch_tokens=256).workers == 1


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_resident_memory_is_seen_and_given_back() -> None:
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
