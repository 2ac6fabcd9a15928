"""Real, unmodified clients of other people against a real process of ours, source or frozen.

`nox -s clients` installs them; the ordinary suite does not collect this directory. Each test
compares vectors, not only statuses, with what `POST /embed` of the same server gives for the
same text and intent. Nothing here may reach beyond loopback.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from fetch_vocabulary import PLAIN
from tests.e2e.process import Client, Served, command

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cortex_embed.domain import ModelSpec
    from cortex_embed.models.artifact import Artifact

    Vectors = NDArray[np.float32]

TIKTOKEN = Path(__file__).resolve().parent.parent.parent / "dist" / "clients" / "tiktoken"
Serve = Callable[..., Served]
TEXTS = [
    "hello world",
    "The quick brown fox.",
    "a",
    "naïve café 😀 北京",
    "don't  stop\n\n now 12345",
]
LONG = "many words make a long text " * 400


@dataclass(frozen=True)
class Target:
    """A ready server and the model that it serves."""

    client: Client
    spec: ModelSpec

    @property
    def url(self) -> str:
        return self.client.url

    def vectors(self, texts: list[str], **more: object) -> Vectors:
        """Float32 [n, d] from our own dialect: what every other one must give."""
        return np.array(self.client.embed(texts, **more), dtype=np.float32)

    def shortened(self, texts: list[str], dimensions: int, **more: object) -> Vectors:
        cut = self.vectors(texts, **more)[:, :dimensions].astype(np.float64)
        shorter: Vectors = (cut / np.linalg.norm(cut, axis=1, keepdims=True)).astype(np.float32)
        return shorter


def same(got: object, expected: Vectors) -> None:
    """Byte for byte as float32, which every wire here carries exactly; for the same texts in the
    same request."""
    found = np.array(got, dtype=np.float32)
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes(), np.abs(found - expected).max()


def near(got: object, expected: Vectors) -> None:
    """Within 1e-6: where the client or the test computes, and where texts have other neighbours
    than in the reference (what the server promises then)."""
    np.testing.assert_allclose(np.array(got), expected, rtol=0, atol=1e-6)


def at_once(call: Callable[[int], Any], count: int) -> list[Any]:
    """`call(0)` to `call(count - 1)`, from sixteen threads."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(call, range(count)))


def pytest_configure(config: pytest.Config) -> None:
    # Our own warnings are errors; other people's deprecations and open sockets are theirs.
    config.addinivalue_line("filterwarnings", "ignore")
    # tiktoken would fetch its vocabulary: it finds it here, from the wheel that we pin.
    if not (TIKTOKEN / PLAIN).is_file():
        raise pytest.UsageError(f"{TIKTOKEN / PLAIN} is missing; `nox -s clients` makes it.")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(TIKTOKEN)


@pytest.fixture(autouse=True)
def only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that calls home fails its test."""
    real = socket.socket.connect

    def connect(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else "local"
        if host not in {"127.0.0.1", "::1", "localhost", "local"}:
            raise AssertionError(f"a client wants to reach {address}")
        real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """`serve(artifact, *flags)` starts a server of its own and returns at once."""
    started: list[Served] = []

    def start(model: Artifact, *flags: str) -> Served:
        home = tmp_path / f"home{len(started)}"
        home.mkdir()
        given = [*command(), "serve", "--port", "0", "--model", str(model.directory), *flags]
        started.append(Served(given, home))
        return started[-1]

    yield start
    for served in started:
        served.close()


@pytest.fixture(scope="session")
def minilm(minilm_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The real model: 384 dimensions, no prefixes."""
    yield from _ready(minilm_artifact, tmp_path_factory)


@pytest.fixture(scope="session")
def tiny(tiny_cls: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """32 dimensions, and a prefix for each intent: a wrong intent is another vector."""
    yield from _ready(tiny_cls, tmp_path_factory)


@pytest.fixture(params=["minilm", "tiny"])
def target(request: pytest.FixtureRequest) -> Target:
    found: Target = request.getfixturevalue(request.param)
    return found


def _ready(artifact: Artifact, factory: pytest.TempPathFactory) -> Iterator[Target]:
    given = [*command(), "serve", "--port", "0", "--model", str(artifact.directory)]
    served = Served(given, factory.mktemp("home"))
    try:
        yield Target(served.ready(), artifact.spec)
    finally:
        served.close()
    assert "Traceback" not in served.stderr
