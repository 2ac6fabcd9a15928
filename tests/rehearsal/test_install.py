"""install.sh with the assets of `nox -s package`: install, start, ask for a vector, remove.

CORTEX_EMBED_RELEASE names another directory than dist/release.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import targets
from cortex_embed import __version__
from release import sums
from smoke import TEXTS, post
from tests.release.install_room import SCRIPT, Room, Server

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
RELEASE = Path(os.environ.get("CORTEX_EMBED_RELEASE", ROOT / "dist" / "release"))
HERE = targets.here(targets.load())

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="install.ps1 is Windows's")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The release at /release, and one in which the full asset was tampered with at /tampered."""
    stated, wrong = sums.read(RELEASE)
    missing = {HERE.asset(form) for form in targets.FORMS} - stated.keys()
    if wrong or missing:
        pytest.fail(f"{RELEASE} is no release for {HERE.name}: {wrong} without {missing}")
    root = tmp_path_factory.mktemp("served")
    (root / "release").symlink_to(RELEASE)
    shutil.copy2(SCRIPT, root)
    tampered = root / "tampered"
    tampered.mkdir()
    shutil.copy2(RELEASE / targets.SUMS, tampered)
    asset = tampered / HERE.asset("full")
    shutil.copy2(RELEASE / asset.name, asset)
    with asset.open("r+b") as file:
        file.seek(asset.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))
    with Server(root) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "room")


@contextmanager
def serving(room: Room) -> Iterator[dict[str, Any]]:
    """The installed program as a sidecar: its ready event."""
    process = subprocess.Popen(
        [room.exe, "serve", "--sidecar"], env=room.environment, cwd=room.home,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        events = (json.loads(line) for line in process.stdout)
        yield next(event for event in events if event["event"] == "ready")
    finally:
        process.communicate(timeout=60)  # closes stdin: the server stops
    assert process.returncode == 0


def vectors(ready: dict[str, Any]) -> list[list[float]]:
    status, answer = post(ready, ready["token"])
    assert status == 200
    found: list[list[float]] = answer["embeddings"]
    assert len(found) == len(TEXTS)
    for vector in found:
        assert abs(sum(x * x for x in vector) - 1) < 1e-5
    return found


def install(room: Room, server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    room.extra["CORTEX_EMBED_BASE_URL"] = f"{server.url}/release"
    return room.install(*arguments)


def test_full_and_directory_form_serve_the_same_vectors(room: Room, served: Server) -> None:
    done = install(room, served)
    assert (done.returncode, done.stderr) == (0, "")
    assert room.version() == f"cortex-embed {__version__}"
    with serving(room) as ready:
        one_file = vectors(ready)
        # Replaced while it serves: it goes on, and the next start is the new one.
        assert install(room, served, "--onedir").returncode == 0
        assert vectors(ready) == one_file
    assert room.exe.is_symlink()
    with serving(room) as ready:
        assert vectors(ready) == one_file
        assert install(room, served).returncode == 0
        assert vectors(ready) == one_file
    assert not room.exe.is_symlink()
    assert room.install("--uninstall").returncode == 0
    assert not room.bin.exists()
    assert not room.library.exists()


def test_slim_installs(room: Room, served: Server) -> None:
    assert install(room, served, "--slim", "--version", __version__).returncode == 0
    assert room.version() == f"cortex-embed {__version__}"


def test_a_tampered_archive_is_refused_and_the_old_one_serves_on(
    room: Room, served: Server
) -> None:
    assert install(room, served).returncode == 0
    before = room.exe.stat()
    done = room.install("--base-url", f"{served.url}/tampered")
    assert done.returncode == 1
    assert "tampered" in done.stderr
    assert os.path.samestat(before, room.exe.stat())
    assert {path.name for path in room.bin.iterdir()} == {"cortex-embed", ".cortex-embed-receipt"}
    with serving(room) as ready:
        assert vectors(ready)


def test_what_a_person_pipes_into_a_shell(room: Room, served: Server) -> None:
    room.extra["CORTEX_EMBED_BASE_URL"] = f"{served.url}/release"
    done = subprocess.run(
        ["sh", "-c", f"curl -fsSL {served.url}/install.sh | sh"],
        env=room.environment, cwd=room.home, capture_output=True, text=True, check=True,
        timeout=300,
    )  # fmt: skip
    assert f"'{room.exe}' serve" in done.stdout
