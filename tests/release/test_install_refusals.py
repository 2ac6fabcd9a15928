"""install.sh refuses, says why and what to do, and leaves everything as it was."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import targets
from tests.release.install_room import (
    Room,
    is_root,
    make_release,
    members,
    pack,
    program,
    sign,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a POSIX script")

FULL = targets.here(targets.load()).asset("full")
TOP = FULL.removesuffix(".tar.gz")


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "room")


def repacked(release: Path, files: dict[str, str]) -> None:
    """Another archive with these files besides, and sums that agree with it."""
    pack(release / FULL, members(TOP, "full", program("0.2.0")) | files)
    sign(release)


def changed_sums(release: Path, change: Callable[[str], str]) -> None:
    path = release / targets.SUMS
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    text = "".join(change(line) if line.endswith(f"  {FULL}\n") else line for line in lines)
    path.write_text(text, encoding="utf-8")


def tampered_archive(release: Path) -> None:
    with (release / FULL).open("r+b") as file:
        file.seek(100)
        file.write(b"\0\0")


def cut_archive(release: Path) -> None:
    os.truncate(release / FULL, 1000)


def replaced_program(release: Path) -> None:
    repacked(release, {f"{TOP}/cortex-embed": "#!/bin/sh\necho no good >&2\nexit 3\n"})


def other_program(release: Path) -> None:
    repacked(release, {f"{TOP}/cortex-embed": "#!/bin/sh\necho other 1\n"})


def no_program(release: Path) -> None:
    pack(release / FULL, {f"{TOP}/LICENSE": "words\n"})
    sign(release)


def linked_program(release: Path) -> None:
    pack(release / FULL, {f"{TOP}/LICENSE": "x"}, [(f"{TOP}/cortex-embed", "/bin/sh")])
    sign(release)


def no_archive(release: Path) -> None:
    (release / FULL).write_text("<html>", encoding="utf-8")
    sign(release)


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "tampered archive": (tampered_archive, "tampered"),
    "cut archive": (cut_archive, "cut short"),
    "tampered sums": (lambda r: changed_sums(r, lambda line: f"{'0' * 64}  {FULL}\n"), "tampered"),
    "no line": (lambda r: changed_sums(r, lambda line: ""), "names " + FULL + " 0 times"),
    "two lines": (lambda r: changed_sums(r, lambda line: line * 2), "names " + FULL + " 2 times"),
    "no hash": (lambda r: changed_sums(r, lambda line: line[1:]), "has no SHA-256"),
    "letters": (lambda r: changed_sums(r, lambda line: f"{'G' * 64}  {FULL}\n"), "has no SHA-256"),
    "no asset": (lambda r: (r / FULL).unlink(), f"/{FULL}. Releases have builds for: linux-x64 "),
    "no sums": (lambda r: (r / targets.SUMS).unlink(), f"/{targets.SUMS}. Releases have builds"),
    "path upwards": (lambda r: repacked(r, {"../evil": "x"}), "'../evil', which is not part"),
    "path up and down": (lambda r: repacked(r, {f"{TOP}/../evil": "x"}), "which is not part of it"),
    "absolute path": (lambda r: repacked(r, {"/evil": "x"}), "which is not part of it"),
    "another file": (lambda r: repacked(r, {f"{TOP}/evil": "x"}), f"'{TOP}/evil', which is not"),
    "not of the one file": (lambda r: repacked(r, {f"{TOP}/_internal/x": "x"}), "is not part"),
    "no program": (no_program, f"does not hold {TOP}/cortex-embed"),
    "a link": (linked_program, "is no plain file"),
    "no archive": (no_archive, "no archive that tar can read"),
    "does not run": (replaced_program, "does not run here (exit code 3): no good"),
    "another program": (other_program, "calls itself 'other 1'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSALS)
def test_a_release_that_is_wrong(room: Room, tmp_path: Path, name: str) -> None:
    breaks, says = REFUSALS[name]
    release = make_release(tmp_path / "broken", "0.2.0")
    breaks(release)
    empty = room.snapshot()
    done = room.install("--base-url", f"file://{release}")
    assert done.returncode == 1
    assert says in done.stderr
    assert room.snapshot() == empty

    good = make_release(tmp_path / "good")
    assert room.install("--base-url", f"file://{good}").returncode == 0
    before = room.snapshot()
    assert room.install("--base-url", f"file://{release}").returncode == 1
    assert room.snapshot() == before
    assert room.version() == "cortex-embed 0.1.0"


def test_a_mismatch_names_both_hashes(room: Room, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release")
    changed_sums(release, lambda line: f"{'ab' * 32}  {FULL}\n")
    said = room.install("--base-url", f"file://{release}").stderr
    assert f"expected {'ab' * 32}\n" in said
    assert said.split("got ")[1].split()[0] != "ab" * 32


@pytest.mark.parametrize(
    "address",
    [
        "http://example.com", "http://127.0.0.1.example.com/x", "http://localhost@example.com/",
        "http://127.0.0.1:80@example.com/", "http://localhost.example.com", "http://[::1].example.com",
        "http://", "ftp://example.com", "example.com", "file://other-host/x", "https://",
    ],
)  # fmt: skip
def test_an_address_that_is_not_safe(room: Room, address: str) -> None:
    room.fake("curl", "touch $HOME/asked")
    done = room.install("--base-url", address)
    assert done.returncode == 1
    assert "https://" in done.stderr
    assert not any(room.home.iterdir())


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ((), "releases/latest/download/SHA256SUMS"),
        (("--version", "0.1.0"), "releases/download/v0.1.0/SHA256SUMS"),
    ],
)
@pytest.mark.parametrize("tool", ["curl", "wget"])
def test_it_asks_github_over_tls(
    room: Room, tool: str, arguments: tuple[str, ...], url: str
) -> None:
    room.without("curl", "wget")
    log = room.root / "log"
    room.fake(
        tool, f'[ "$1" != --version ] || {{ echo GNU Wget; exit; }}\necho "$@" >>"{log}"\nexit 6'
    )
    done = room.install(*arguments)
    assert done.returncode == 1
    assert "could not download https://github.com/" in done.stderr
    said = log.read_text(encoding="utf-8")
    assert said.endswith(f"https://github.com/{targets.load().release.repository}/{url}\n")
    tls = "--proto =https --tlsv1.2" if tool == "curl" else "--secure-protocol=TLSv1_2"
    assert tls in said


@pytest.mark.parametrize(
    ("fakes", "says"),
    [
        ({"uname": "echo riscv64"}, "there is no build for riscv64"),
        (
            {"uname": '[ "$1" = -s ] && echo Linux || echo riscv64'},
            "for Linux on riscv64. There are builds for: linux-x64 linux-arm64 ",
        ),
        ({"uname": '[ "$1" = -s ] && echo FreeBSD || echo amd64'}, "there is no build for FreeBSD"),
        ({"uname": "echo MINGW64_NT-10.0"}, "use install.ps1"),
        (
            {"uname": '[ "$1" = -s ] && echo Linux || echo aarch64', "getconf": "echo 32"},
            "is 32-bit",
        ),
    ],
)
def test_a_machine_without_a_build(room: Room, fakes: dict[str, str], says: str) -> None:
    for tool, body in fakes.items():
        room.fake(tool, body)
    done = room.install("--base-url", "file:///nothing")
    assert done.returncode == 1
    assert says in done.stderr
    assert not any(room.home.iterdir())


LINUX = '[ "$1" = -s ] && echo Linux || echo x86_64'
NO_GETCONF = "exit 1"
MUSL = "echo 'musl libc (x86_64)' >&2; echo 'Version 1.2.4' >&2; exit 1"


@pytest.mark.parametrize(
    ("getconf", "ldd", "says"),
    [
        (NO_GETCONF, MUSL, "musl (Alpine?), and there is no build for it: ONNX Runtime"),
        ("[ $1 = LONG_BIT ] && echo 64 || echo glibc 2.27", "exit 1", "glibc 2.27 is too old"),
        (NO_GETCONF, "echo 'ldd (Ubuntu GLIBC 2.17-0ubuntu5) 2.17'", "glibc 2.17 is too old"),
        (NO_GETCONF, "echo 'ldd (GNU libc) 2.5'", "needs glibc 2.28 or newer"),
    ],
)
def test_a_c_library_that_is_too_old(room: Room, getconf: str, ldd: str, says: str) -> None:
    for tool, body in (("uname", LINUX), ("getconf", getconf), ("ldd", ldd)):
        room.fake(tool, body)
    done = room.install("--base-url", "file:///nothing")
    assert done.returncode == 1
    assert says in done.stderr
    assert not any(room.home.iterdir())


@pytest.mark.parametrize(
    ("getconf", "ldd", "warns"),
    [
        ("[ $1 = LONG_BIT ] && echo 64 || echo glibc 2.28", "exit 1", ""),
        (NO_GETCONF, "echo 'ldd (Debian GLIBC 2.100-9) 2.100'; echo Copyright", ""),
        (NO_GETCONF, "exit 1", "could not find out which glibc this is"),
    ],
)
def test_a_c_library_that_will_do(
    room: Room, tmp_path: Path, getconf: str, ldd: str, warns: str
) -> None:
    for tool, body in (("uname", LINUX), ("getconf", getconf), ("ldd", ldd)):
        room.fake(tool, body)
    done = room.install("--base-url", f"file://{make_release(tmp_path / 'release')}")
    assert done.returncode == 0
    assert warns in done.stderr
    assert bool(warns) == bool(done.stderr)


@pytest.mark.parametrize(
    ("machine", "silicon", "version", "says"),
    [
        ("x86_64", "1", "14.0", "full, macos-arm64"),  # a shell under Rosetta
        ("arm64", "1", "26.1", "full, macos-arm64"),
        ("x86_64", "0", "13.4", "full, macos-x64"),
        ("x86_64", "0", "13.3.1", "13.3.1 is too old: the build for macos-x64 needs macOS 13.4"),
        ("x86_64", "1", "13.9", "13.9 is too old: the build for macos-arm64 needs macOS 14.0"),
    ],
)
def test_macos(
    room: Room, tmp_path: Path, *, machine: str, silicon: str, version: str, says: str
) -> None:
    room.fake("uname", f'[ "$1" = -s ] && echo Darwin || echo {machine}')
    room.fake("sysctl", f"echo {silicon}")
    room.fake("sw_vers", f"[ $SYSTEM_VERSION_COMPAT = 0 ] && echo {version}")
    done = room.install("--base-url", f"file://{make_release(tmp_path / 'release')}")
    assert says in done.stdout + done.stderr
    assert room.exe.exists() == ("full" in says) == (done.returncode == 0)


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (("sha256sum", "shasum", "openssl"), "computes SHA-256"),
        (("curl", "wget"), "curl or wget is needed"),
        (("tar",), "'tar' is needed"),
        (("gzip",), "'gzip' is needed"),
    ],
)
def test_a_tool_that_is_missing(room: Room, missing: tuple[str, ...], says: str) -> None:
    room.without(*missing)
    done = room.install()
    assert done.returncode == 1
    assert says in done.stderr
    assert not any(room.home.iterdir())


def test_a_wget_that_checks_no_certificates(room: Room) -> None:
    room.without("curl")
    room.fake("wget", "echo unrecognized option >&2; exit 1")
    done = room.install()
    assert done.returncode == 1
    assert "does not check certificates" in done.stderr


def test_root_must_say_where_to(room: Room) -> None:
    room.fake("id", "echo 0")
    done = room.install()
    assert done.returncode == 1
    assert "root is not needed" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--slim", "--onedir"), ("--fast",), ("--dir",), ("--dir=",), ("--version", "1;rm"), ("x",)],
)
def test_misuse(room: Room, arguments: tuple[str, ...]) -> None:
    done = room.install(*arguments)
    assert done.returncode == 2
    assert "--help" in done.stderr


def test_help(room: Room) -> None:
    done = room.install("--help")
    assert done.returncode == 0
    for option in ("--version", "--slim", "--onedir", "--dir", "--base-url", "--uninstall"):
        assert option in done.stdout


def test_a_home_that_is_not_set(room: Room) -> None:
    room.extra["HOME"] = ""
    assert "HOME is not set" in room.install().stderr


def test_a_directory_that_cannot_be_written(room: Room, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release")
    (room.home / "file").touch()
    done = room.install("--base-url", f"file://{release}", "--dir", "file/bin")
    assert "is no directory" in done.stderr
    closed = room.home / "closed"
    closed.mkdir(mode=0o555)
    # root writes everywhere, but for here
    where = "/proc/self/bin" if is_root() else str(closed / "bin")
    done = room.install("--base-url", f"file://{release}", "--dir", where)
    assert done.returncode == 1
    assert f"cannot write in {where.removesuffix('/bin')}. Say where else" in done.stderr


def test_a_limit_on_files(room: Room, tmp_path: Path) -> None:
    """As a full disk: the download cannot be written."""
    release = make_release(tmp_path / "release")
    before = room.snapshot()
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *room.command("--base-url", f"file://{release}")],
        env=room.environment, cwd=room.home,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is the disk full?" in done.stderr
    assert room.snapshot() == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("size=24k", "is the disk full? (cp"),
        ("size=80k", "could not unpack"),
        ("size=8m,noexec", "runs no programs (noexec)"),
    ],
)
def test_a_file_system_of_its_own(room: Room, tmp_path: Path, options: str, says: str) -> None:
    """A real full disk, at the download and at the unpacking; and a real noexec one."""
    unshare = shutil.which("unshare")
    where = room.home / "small"
    where.mkdir()
    trial = ("-rm", "mount", "-t", "tmpfs", "none", where)
    if (
        not unshare
        or subprocess.run([unshare, *trial], capture_output=True, check=False).returncode
    ):
        pytest.skip("a file system cannot be mounted in a namespace of one's own here")
    release = make_release(tmp_path / "release")
    arguments = ("--base-url", f"file://{release}", "--dir", str(where))
    script = 'mount -t tmpfs -o "$1" none "$2"; d=$2; shift 2; "$@"; echo "code $?"; ls -A "$d"'
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", script, "sh", options, str(where), *room.command(*arguments)],
        env={**room.environment, "PATH": f"{room.fakes}:{os.environ['PATH']}"}, cwd=room.home,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert says in done.stderr
    assert done.stdout.split("code ")[1] == "1\n"  # and no file is left


def test_nothing_to_uninstall(room: Room) -> None:
    done = room.install("--uninstall")
    assert done.returncode == 1
    assert "Say where it is: --dir DIR" in done.stderr


def test_a_receipt_cannot_have_other_things_removed(room: Room, tmp_path: Path) -> None:
    release = make_release(tmp_path / "release")
    assert room.install("--base-url", f"file://{release}", "--onedir").returncode == 0
    receipt = room.bin / ".cortex-embed-receipt"
    victims = [room.home / "mine", room.library.parent / "other"]
    for victim in victims:
        victim.mkdir()
    lines = [
        *map(str, victims),
        f"{room.library}/../other",
        f"{room.library}/",
        f"{room.library}/..",
    ]
    with receipt.open("a", encoding="utf-8") as file:
        file.writelines(f"tree {line}\nmade {room.library}\n" for line in lines)
    (victims[0] / "file").touch()
    assert room.install("--uninstall").returncode == 0
    assert all(victim.is_dir() for victim in victims)
