"""install.sh installs, replaces and removes: by every shell, and by what is on this machine."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

import targets
from tests.release.install_room import (
    SCRIPT,
    TOOLS,
    Room,
    Server,
    make_release,
    pack,
    program,
    shells,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX script")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two releases, to be served. Read only."""
    root = tmp_path_factory.mktemp("served")
    make_release(root / "one")
    make_release(root / "two", "0.2.0")
    return root


@pytest.fixture
def server(files: Path) -> Iterator[Server]:
    with Server(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "room")


@pytest.fixture(params=shells())
def any_room(tmp_path: Path, request: pytest.FixtureRequest) -> Room:
    """One for each shell that is here."""
    shell = shells()[request.param]
    if not shutil.which(shell[0]):
        pytest.skip(f"{shell[0]} is not on this machine")
    return Room(tmp_path / "room", shell)


def test_it_installs_verifies_and_runs(any_room: Room, server: Server) -> None:
    done = any_room.install("--base-url", f"{server.url}/one")
    assert (done.returncode, done.stderr) == (0, "")
    assert any_room.version() == "cortex-embed 0.1.0"
    assert "SHA-256 verified: " in done.stdout
    assert f"Installed cortex-embed 0.1.0: {any_room.exe}" in done.stdout
    assert f'export PATH="{any_room.bin}:$PATH"' in done.stdout
    # Nothing else: not in the temporary directory, no start-up file of a shell.
    assert {p for p in any_room.home.rglob("*") if p.is_file()} == {
        any_room.exe,
        any_room.bin / ".cortex-embed-receipt",
    }
    assert not any(any_room.temp.iterdir())


def test_uninstall_leaves_nothing(any_room: Room, server: Server) -> None:
    before = any_room.snapshot()
    for form in ((), ("--onedir",), ("--slim",)):
        assert any_room.install("--base-url", f"{server.url}/one", *form).returncode == 0
    done = any_room.install("--uninstall")
    assert (done.returncode, done.stderr) == (0, "")
    assert any_room.snapshot() == before


def test_a_refusal_leaves_what_was_there(any_room: Room, server: Server) -> None:
    assert any_room.install("--base-url", f"{server.url}/one").returncode == 0
    before = any_room.snapshot()
    name = targets.here(targets.load()).asset("full")
    server.cut.add(name)
    done = any_room.install("--base-url", f"{server.url}/two")
    assert done.returncode == 1
    assert f"could not download {server.url}/two/{name}" in done.stderr
    assert any_room.snapshot() == before


def test_from_a_pipe_as_the_readme_says(room: Room, server: Server) -> None:
    room.extra["CORTEX_EMBED_BASE_URL"] = f"{server.url}/one"
    done = room.install("--slim", stdin=SCRIPT.read_bytes())
    assert (done.returncode, done.stderr) == (0, "")
    assert room.version() == "cortex-embed 0.1.0"
    assert any("slim" in path for path in server.asked)


def test_a_script_that_was_cut_runs_nothing(room: Room, server: Server) -> None:
    room.extra["CORTEX_EMBED_BASE_URL"] = f"{server.url}/one"
    script = SCRIPT.read_bytes()
    before = room.snapshot()
    # Everywhere in the last line, and at some lines before it.
    ends = [i for i, byte in enumerate(script) if byte == ord("\n")][:-1:12]
    for end in (*ends, *range(len(script) - len('{ main "$@"; }\n'), len(script) - 1)):
        room.install(stdin=script[:end])
    assert room.snapshot() == before
    assert not server.asked
    assert room.install(stdin=script).returncode == 0


def test_a_second_installation_replaces_the_first_at_once(room: Room, server: Server) -> None:
    assert room.install("--base-url", f"{server.url}/one").returncode == 0
    seen, stop = set(), threading.Event()

    def watch() -> None:
        while not stop.is_set():
            seen.add(room.exe.read_bytes())  # an absent file fails the test

    # It runs while it is replaced, and its shell reads the rest of it afterwards.
    running = subprocess.Popen(
        [room.exe, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=room.environment
    )
    watcher = threading.Thread(target=watch)
    watcher.start()
    done = room.install("--base-url", f"{server.url}/two")
    stop.set()
    watcher.join()
    said, _ = running.communicate(b"go\n", timeout=30)
    assert said == b"still 0.1.0\n"
    assert seen <= {program("0.1.0").encode(), program("0.2.0").encode()}
    assert program("0.1.0").encode() in seen
    assert done.returncode == 0
    assert "Installed cortex-embed 0.2.0 in place of 0.1.0" in done.stdout
    assert room.version() == "cortex-embed 0.2.0"


def test_the_directory_form_is_a_link_that_changes(room: Room, server: Server) -> None:
    assert room.install("--base-url", f"{server.url}/one", "--onedir").returncode == 0
    first = room.exe.readlink().parent
    assert first.parent == room.library
    assert (first / "_internal" / "lib" / "a b.txt").read_text(encoding="utf-8") == "library\n"
    assert (first / "LICENSE").is_file()
    assert room.version() == "cortex-embed 0.1.0"
    assert room.install("--base-url", f"{server.url}/two", "--onedir").returncode == 0
    assert room.version() == "cortex-embed 0.2.0"
    # A server may still run from the first; the next installation removes it.
    assert first.is_dir()
    assert room.install("--base-url", f"{server.url}/two", "--onedir").returncode == 0
    assert list(room.library.iterdir()) == [first.parent / room.exe.readlink().parent.name]
    assert room.install("--base-url", f"{server.url}/two").returncode == 0
    assert not room.exe.is_symlink()
    assert room.version() == "cortex-embed 0.2.0"


def test_a_directory_of_ones_own(room: Room, server: Server) -> None:
    room.fake("id", "echo 0")
    before = room.snapshot()
    done = room.install("--base-url", f"{server.url}/one", "--dir", "some where/", "--onedir")
    assert done.returncode == 0
    exe = room.home / "some where" / "cortex-embed"
    assert exe.readlink().is_relative_to(exe.parent / "cortex-embed-onedir")
    assert f"--uninstall --dir '{exe.parent}'" in done.stdout
    (exe.parent / "mine.txt").touch()
    assert room.install("--uninstall", "--dir", str(exe.parent)).returncode == 0
    assert set(room.snapshot()) - set(before) == {"a hôme/some where", "a hôme/some where/mine.txt"}


def test_without_a_network_from_a_directory(room: Room, files: Path) -> None:
    room.without("curl", "wget")
    assert room.install(f"--base-url=file://{files}/one/").returncode == 0
    assert room.version() == "cortex-embed 0.1.0"


@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_either_downloader_does(room: Room, server: Server, tool: str) -> None:
    room.without(*({"curl", "wget"} - {tool}))
    if not (room.tools / tool).exists():
        pytest.skip(f"{tool} is not on this machine")
    assert room.install("--base-url", f"{server.url}/one").returncode == 0
    assert room.version() == "cortex-embed 0.1.0"
    done = room.install("--base-url", f"{server.url}/three")
    assert done.returncode == 1
    assert f"there is no {server.url}/three/SHA256SUMS" in done.stderr
    server.cut.add(targets.here(targets.load()).asset("full"))
    done = room.install("--base-url", f"{server.url}/two")
    assert done.returncode == 1
    assert "Nothing was installed" in done.stderr
    assert room.version() == "cortex-embed 0.1.0"


@pytest.mark.parametrize("tool", ["sha256sum", "shasum", "openssl"])
def test_any_hash_tool_does(room: Room, server: Server, tool: str) -> None:
    room.without(*({"sha256sum", "shasum", "openssl"} - {tool}))
    if not (room.tools / tool).exists():
        pytest.skip(f"{tool} is not on this machine")
    assert room.install("--base-url", f"{server.url}/one").returncode == 0
    assert room.install("--base-url", f"{server.url}/two").returncode == 0


def test_it_tells_of_path_and_attestation(room: Room, server: Server) -> None:
    room.extra["PATH"] = f"{room.fakes}:{room.tools}:{room.bin}"
    room.fake("gh", "exit 1")
    done = room.install("--base-url", f"{server.url}/one")
    assert "Run it:  cortex-embed serve\n" in done.stdout
    assert "export PATH" not in done.stdout
    name = targets.here(targets.load()).asset("full")
    repository = targets.load().release.repository
    assert f"gh attestation verify {name} --repo {repository}\n" in done.stdout
    room.fake("cortex-embed", "exit 1")
    done = room.install("--base-url", f"{server.url}/one")
    assert f"'cortex-embed' is {room.fakes}/cortex-embed, which comes before it" in done.stderr


def test_another_one_of_that_name_is_left_alone(room: Room, server: Server) -> None:
    room.bin.mkdir(parents=True)
    room.exe.write_text("pip's\n", encoding="utf-8")
    before = room.snapshot()
    done = room.install("--base-url", f"{server.url}/one")
    assert done.returncode == 1
    assert "was not put there by this script" in done.stderr
    assert room.snapshot() == before
    assert room.install("--uninstall").returncode == 1
    assert room.snapshot() == before

    room.exe.unlink()
    assert room.install("--base-url", f"{server.url}/one").returncode == 0
    room.exe.write_text("pip's\n", encoding="utf-8")
    done = room.install("--uninstall")
    assert "left as it is" in done.stderr
    assert room.exe.read_text(encoding="utf-8") == "pip's\n"


def as_at_a_terminal() -> None:
    """Under nohup, or in a script's background, they are ignored, which no shell can undo."""
    for one in (signal.SIGINT, signal.SIGHUP):
        signal.signal(one, signal.SIG_DFL)


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_an_interruption_leaves_nothing(
    any_room: Room, server: Server, name: str, code: int
) -> None:
    room = any_room
    before = room.snapshot()
    server.stalled.add(targets.here(targets.load()).asset("full"))
    process = subprocess.Popen(
        room.command("--base-url", f"{server.url}/one"), env=room.environment, cwd=room.home,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=as_at_a_terminal,  # noqa: PLW1509 - it takes no lock: two system calls
    )  # fmt: skip
    assert server.stalling.wait(30)
    os.killpg(process.pid, getattr(signal, name))  # as a terminal does
    _, said = process.communicate(timeout=30)
    assert process.returncode == code
    assert b"interrupted" in said
    assert room.snapshot() == before


def test_the_version_that_was_asked_for(room: Room, server: Server) -> None:
    done = room.install("--base-url", f"{server.url}/one", "--version", "v0.2.0")
    assert done.returncode == 1
    assert "asked for 0.2.0, and" in done.stderr
    assert not any(room.home.iterdir())
    assert room.install("--base-url", f"{server.url}/two", "--version=0.2.0").returncode == 0


def test_links_inside_the_directory_form(room: Room, tmp_path: Path) -> None:
    name = targets.here(targets.load()).asset("onedir")
    top = name.removesuffix(".tar.gz")
    release = make_release(tmp_path / "release")
    files = {f"{top}/cortex-embed": program("0.1.0"), f"{top}/_internal/x/lib.so": "x\n"}
    pack(release / name, files, [(f"{top}/_internal/lib.so", "x/lib.so")])
    sign(release)
    assert room.install("--base-url", f"file://{release}", "--onedir").returncode == 0
    assert (room.exe.readlink().parent / "_internal" / "lib.so").read_text(
        encoding="utf-8"
    ) == "x\n"


def test_with_the_tools_of_busybox_alone(tmp_path: Path, server: Server) -> None:
    busybox = shutil.which("busybox")
    if not busybox:
        pytest.skip("busybox is not on this machine")
    room = Room(tmp_path / "room", ("busybox", "sh"))
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    room.without(*TOOLS)
    for tool in {*TOOLS} & {*done.stdout.split()}:
        (room.tools / tool).symlink_to(busybox)
    for form in ((), ("--onedir",)):
        run = room.install("--base-url", f"{server.url}/one", *form)
        assert run.returncode == 0
        assert "could not find out which glibc" in run.stderr
        assert room.version() == "cortex-embed 0.1.0"
    assert "does not check certificates" in room.install().stderr
    assert room.install("--uninstall").returncode == 0
    assert not any(room.home.iterdir())
