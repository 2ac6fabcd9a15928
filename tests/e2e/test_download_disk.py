"""Downloads to disks that are full or read-only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.machine import GRAPH, REPO, Machine, until
from tests.hub import catalogue, repository

pytestmark = pytest.mark.e2e

_IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0


@contextmanager
def _mounted(place: Path, *options: str) -> Iterator[None]:
    place.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, timeout=20, check=False).returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True, timeout=20)


@pytest.mark.skipif(not _IS_ROOT or sys.platform != "linux", reason="only root can mount a tmpfs")
def test_a_full_disk_is_told_and_gone_on_from(machine: Machine) -> None:
    machine.hub.repositories[REPO] = repository(rows=20_000)  # 2.6 MB
    catalogue(machine.home / "mine.toml", machine.hub)
    with _mounted(machine.data, "-o", "size=24m"):
        filler = machine.data / "filler"
        filler.write_bytes(bytes(10 * 2**20))
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
        assert "MB free; the download needs" in err
        assert machine.hub.count("GET", GRAPH) == 0
        filler.unlink()
        # It fills up on the way.
        machine.hub.trouble(GRAPH, "slow", times=1)
        process = machine.start("models", "pull", "tiny-hub")
        until(lambda: machine.hub.sent[GRAPH] > 100_000)
        _fill(filler)
        _, err = process.communicate(timeout=30)
        assert (process.returncode, "is full" in err) == (10, True), err
        filler.unlink()
        machine.run("models", "pull", "tiny-hub")
        assert machine.files() == []


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(2**16))
            except OSError:
                return


@pytest.mark.skipif(not _IS_ROOT or sys.platform != "linux", reason="only root can mount a tmpfs")
def test_a_disk_that_is_read_only_is_named(machine: Machine) -> None:
    with _mounted(machine.data, "-o", "ro"):
        _, err = machine.run("models", "pull", "tiny-hub", code=10)
    assert f"{machine.data / 'models'} cannot be written" in err
    assert "--model-dir" in err
