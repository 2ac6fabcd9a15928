"""A real process with the hash provider: everything but a model is what people run."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.e2e.process import Served


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz", type=int, default=1000, metavar="N", help="mutated bodies for each dialect"
    )
    parser.addoption("--fuzz-seed", default="1", metavar="SEED", help="have a run again")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("home")
    one = Served([sys.executable, "-m", "cortex_embed", "serve", "--model=hash", "--port=0"], home)
    yield one
    one.close()
