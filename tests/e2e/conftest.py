"""Processes for tests: started in an empty home, ended with the test, checked for litter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cortex_embed.models.artifact import Artifact
from tests.e2e.machine import REPO, Machine
from tests.e2e.process import Client, Served, command
from tests.hub import Hub, repository, running

Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def exe() -> list[str]:
    """The command that every end-to-end test runs: source, or the frozen file of the same name."""
    return command()


@pytest.fixture
def serve(exe: list[str], tmp_path: Path) -> Iterator[Serve]:
    """`serve(artifact, *flags)` starts `cortex-embed serve --port 0` and returns at once."""
    started: list[Served] = []

    def start(model: Artifact | Path, *flags: str) -> Served:
        directory = model if isinstance(model, Path) else model.directory
        home = tmp_path / f"home{len(started)}"
        home.mkdir()
        given = [*exe, "serve", "--model", str(directory), *flags]
        started.append(Served(given if "--port" in flags else [*given, "--port", "0"], home))
        return started[-1]

    yield start
    for served in started:
        served.close()
    for served in started:
        assert served.litter() == []


@pytest.fixture(params=["tiny_mean", "tiny_cls"])
def tiny(request: pytest.FixtureRequest) -> Artifact:
    artifact: Artifact = request.getfixturevalue(request.param)
    return artifact


@pytest.fixture(params=["tiny_mean", "tiny_cls", pytest.param("real", marks=pytest.mark.real)])
def model(request: pytest.FixtureRequest) -> Artifact:
    """Both poolings in small, and the real one."""
    name = "minilm_artifact" if request.param == "real" else request.param
    artifact: Artifact = request.getfixturevalue(name)
    return artifact


@pytest.fixture(scope="module")
def client(
    exe: list[str], tiny_mean: Artifact, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Client]:
    """A ready server with the small mean-pooled model; one for all tests of a module."""
    home = tmp_path_factory.mktemp("home")
    served = Served([*exe, "serve", "--port", "0", "--model", str(tiny_mean.directory)], home)
    try:
        yield served.ready()
    finally:
        served.close()
    assert served.litter() == []
    assert "Traceback" not in served.stderr


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running() as one:
        one.repositories[REPO] = repository()
        yield one


@pytest.fixture
def machine(exe: list[str], hub: Hub, tmp_path: Path) -> Machine:
    return Machine(exe, hub, tmp_path / "home")
