from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cortex_embed.providers import cores

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("content", "quota"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000", 0.5)]
)
def test_quota_of_cgroup_v2(content: str, quota: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(content)
    assert cores.cgroup_quota(tmp_path) == quota


@pytest.mark.parametrize(("content", "quota"), [("-1", None), ("200000", 2.0)])
def test_quota_of_cgroup_v1(content: str, quota: float | None, tmp_path: Path) -> None:
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(content)
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.cgroup_quota(tmp_path) == quota


def test_without_a_cgroup_there_is_no_quota(tmp_path: Path) -> None:
    assert cores.cgroup_quota(tmp_path) is None
    assert 1 <= cores.available_cores(tmp_path) <= (os.cpu_count() or 1)


def test_a_quota_bounds_the_cores_but_leaves_one(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("10000 100000")
    assert cores.available_cores(tmp_path) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_affinity_bounds_the_cores(tmp_path: Path) -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores.available_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="affinity is Linux's")
def test_two_threads_of_a_core_count_once(tmp_path: Path) -> None:
    allowed = sorted(os.sched_getaffinity(0))
    for cpu in allowed:
        place = tmp_path / f"cpu{cpu}" / "topology"
        place.mkdir(parents=True)
        first = allowed[0]
        (place / "thread_siblings_list").write_text(f"{first}-{max(allowed)}\n")
    assert cores.available_cores(tmp_path / "none", tmp_path) == 1
