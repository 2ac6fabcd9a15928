"""The wheel in an environment of its own, with the locked runtime from the package index.

Needs a package index. What is installed must behave as this source does: the same vectors, and
clear words where there is no model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cortex_embed import __version__
from cortex_embed.models.artifact import Artifact
from release import wheel
from smoke import TEXTS
from tests.e2e.process import TIMEOUT, Served, environment

LOCK = wheel.ROOT / "requirements" / "runtime.lock"
UV = Path(sys.executable).with_name("uv.exe" if sys.platform == "win32" else "uv")
BIN = "Scripts" if sys.platform == "win32" else "bin"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel.make(tmp_path_factory.mktemp("wheel"))[0]


@pytest.fixture(scope="module")
def exe(made: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The command that the wheel installs."""
    root = tmp_path_factory.mktemp("environment") / "venv"
    python = str(root / BIN / "python")
    for command in (
        ["venv", "--python", sys.executable, str(root)],
        ["pip", "install", "--python", python, "--require-hashes", "-r", str(LOCK)],
        ["pip", "install", "--python", python, "--no-deps", str(made)],
        ["pip", "check", "--python", python],
    ):
        subprocess.run([UV, *command], check=True, timeout=300)
    return str(root / BIN / "cortex-embed")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


def run(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """In an empty home, without this source on the path."""
    clean = {k: v for k, v in environment(home).items() if k != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=home, env=clean, capture_output=True, encoding="utf-8",
        timeout=TIMEOUT, check=False,
    )  # fmt: skip


def test_it_says_its_version(exe: str, home: Path) -> None:
    done = run(home, exe, "--version")
    assert (done.returncode, done.stdout) == (0, f"cortex-embed {__version__}\n")


def test_without_a_model_it_lists_what_it_could_have(exe: str, home: Path) -> None:
    done = run(home, exe, "models", "list")
    assert done.returncode == 0, done.stderr
    assert "bge-small-en-v1.5" in done.stdout
    done = run(home, exe, "doctor")
    assert done.returncode == 0, done.stderr
    assert "bge-small-en-v1.5: not on this machine; to download" in done.stdout
    assert str(wheel.ROOT) not in done.stdout


def test_offline_without_a_model_it_says_how_to_get_one(exe: str, home: Path) -> None:
    done = run(home, exe, "serve", "--offline", "--port", "0")
    assert done.returncode == 10
    assert "bge-small-en-v1.5 is not on this machine, and --offline" in done.stderr
    assert "cortex-embed models import" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_vectors_are_this_sources(exe: str, home: Path, minilm_artifact: Artifact) -> None:
    model = str(minilm_artifact.directory)
    done = run(home, exe, "embed", "--model", model, *TEXTS)
    assert done.returncode == 0, done.stderr
    here = subprocess.run(
        [sys.executable, "-m", "cortex_embed", "embed", "--model", model, *TEXTS],
        env=environment(home), capture_output=True, encoding="utf-8",
        timeout=TIMEOUT, check=True,
    )  # fmt: skip
    ours, theirs = (
        [json.loads(line)["embedding"] for line in out.splitlines()]
        for out in (here.stdout, done.stdout)
    )
    assert len(ours) == len(TEXTS)
    assert theirs == ours


def test_a_models_directory_is_found_and_langchains_ids_are_read(
    exe: str, home: Path, minilm_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    directory = home.parent / "models"
    directory.mkdir()
    (directory / minilm_artifact.spec.id).symlink_to(minilm_artifact.directory)
    cases = wheel.ROOT / "tests" / "data" / "cl100k.json"
    case = json.loads(cases.read_text(encoding="utf-8"))["cases"][0]
    command = [exe, "serve", "--port", "0", "--offline", "--model-dir", str(directory)]
    served = Served([*command, "--model", minilm_artifact.spec.id], home)
    try:
        client = served.ready()
        by_ids, by_text = (
            client.post("/v1/embeddings", {"model": minilm_artifact.spec.id, "input": given}).json
            for given in ([case["ids"]], [case["text"]])
        )
        assert by_ids["data"][0]["embedding"] == by_text["data"][0]["embedding"]
    finally:
        served.close()


def test_uvx_runs_it(made: Path, tmp_path: Path) -> None:
    """With the newest of everything that the wheel's own bounds allow."""
    uvx = [str(UV.with_name(f"uvx{UV.suffix}")), "--python", sys.executable, "--from", str(made)]
    done = subprocess.run(
        [*uvx, "cortex-embed", "--version"],
        env=os.environ | {"UV_CACHE_DIR": str(tmp_path)}, capture_output=True, encoding="utf-8",
        timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"cortex-embed {__version__}\n"), done.stderr
