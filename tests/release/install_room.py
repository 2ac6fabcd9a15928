"""What install.sh meets, made by code: a release of stand-ins, a file server, an empty machine.

A stand-in is a shell script in the layout of the real archives. It must never reach beyond the
loopback, or let the script see this machine's own HOME or PATH.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import targets
from release import manifests

if TYPE_CHECKING:
    from collections.abc import Sequence

SCRIPT = manifests.TEMPLATES / "install.sh"
PAPERS = ("LICENSE", "README.md", "THIRD-PARTY-LICENSES.txt")
TOOLS = (
    "cat", "chmod", "cp", "dirname", "getconf", "grep", "gzip", "id", "ldd", "ln", "mkdir",
    "mktemp", "mv", "readlink", "rm", "rmdir", "sed", "sh", "sha256sum", "shasum", "openssl",
    "sw_vers", "sysctl", "tail", "tar", "uname", "uniq", "curl", "wget",
)  # fmt: skip
"""What a system needs for install.sh: a room's PATH has nothing else."""
_PADDING = hashlib.shake_128(b"stand-in").hexdigest(32_000)


def program(version: str) -> str:
    """A stand-in for the executable, large enough to run into a limit."""
    return (
        "#!/bin/sh\n"
        'case "$1" in\n'
        f"--version) echo cortex-embed {version};;\n"
        f"serve) read line; echo still {version};;\n"
        "esac\n"
        f"exit\n# {_PADDING}\n"
    )


def members(top: str, form: str, text: str) -> dict[str, str]:
    """An archive's files by their names in it."""
    inside = {"_internal/lib/a b.txt": "library\n"} if form == "onedir" else {}
    papers = dict.fromkeys(PAPERS, "words\n")
    return {
        f"{top}/{name}": body for name, body in {"cortex-embed": text, **papers, **inside}.items()
    }


def pack(out: Path, files: dict[str, str], links: Sequence[tuple[str, str]] = ()) -> None:
    """Write `files` (name in the archive to text) and `links` as a .tar.gz."""
    with (
        out.open("wb") as raw,
        gzip.GzipFile("", "wb", 1, raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755 if name.endswith("/cortex-embed") else 0o644
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
        for name, goal in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, goal
            archive.addfile(info)


def sign(directory: Path) -> None:
    """SHA256SUMS over what is there."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(directory.iterdir())
        if path.name != targets.SUMS
    ]
    (directory / targets.SUMS).write_text("".join(lines), encoding="utf-8")


def make_release(directory: Path, version: str = "0.1.0") -> Path:
    """All archives that install.sh can want, of stand-ins."""
    directory.mkdir()
    for target in targets.load().targets:
        for form in targets.FORMS if target.archive == "tar.gz" else ():
            name = target.asset(form)
            pack(
                directory / name,
                members(name.removesuffix(".tar.gz"), form, program(version)),
            )
    shutil.copy2(SCRIPT, directory)
    sign(directory)
    return directory


class Handler(SimpleHTTPRequestHandler):
    """Serves files; of those in `server.cut` the first half, and of `server.stalled` no end."""

    server: Server

    def do_GET(self) -> None:
        file = Path(self.translate_path(self.path))
        self.server.asked.append(self.path)
        if file.name not in {*self.server.cut, *self.server.stalled}:
            return super().do_GET()
        body = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.wfile.flush()
        if file.name in self.server.stalled:
            self.server.stalling.set()
            self.server.go_on.wait(30)
        self.close_connection = True
        return None

    def log_message(self, *args: object) -> None:
        """Quiet: what was asked for is in `server.asked`."""


class Server(ThreadingHTTPServer):
    """On the loopback, at a port of its own."""

    def __init__(self, root: Path) -> None:
        self.cut: set[str] = set()
        self.stalled: set[str] = set()
        self.asked: list[str] = []
        self.stalling, self.go_on = threading.Event(), threading.Event()
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(root)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@dataclass
class Room:
    """An empty home, and a PATH of links to the tools. `fakes` come first on it."""

    root: Path
    shell: Sequence[str] = ("sh",)
    extra: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for directory in (self.home, self.temp, self.fakes, self.tools):
            directory.mkdir(parents=True)
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.tools / tool).symlink_to(found)
        # The tests may be root's, to whom the script gives no directory.
        self.fake("id", "echo 1000")

    @property
    def home(self) -> Path:
        return self.root / "a hôme"

    @property
    def temp(self) -> Path:
        return self.root / "temp"

    @property
    def fakes(self) -> Path:
        return self.root / "fakes"

    @property
    def tools(self) -> Path:
        return self.root / "tools"

    @property
    def bin(self) -> Path:
        return self.home / ".local" / "bin"

    @property
    def exe(self) -> Path:
        return self.bin / "cortex-embed"

    @property
    def library(self) -> Path:
        return self.home / ".local" / "share" / "cortex-embed"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "TMPDIR": str(self.temp),
            "PATH": f"{self.fakes}:{self.tools}",
            "LC_ALL": "C",
            **self.extra,
        }

    def fake(self, tool: str, body: str) -> None:
        path = self.fakes / tool
        path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
        path.chmod(0o755)

    def without(self, *tools: str) -> None:
        for tool in tools:
            (self.tools / tool).unlink(missing_ok=True)

    def command(self, *arguments: str) -> list[str]:
        program, *rest = self.shell
        return [shutil.which(program) or program, *rest, str(SCRIPT), *arguments]

    def install(
        self, *arguments: str, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run the script with a file, or with `stdin` as `curl | sh` does."""
        command = self.command(*arguments)
        if stdin is not None:
            command = [*command[: -1 - len(arguments)], "-s", "--", *arguments]
        done = subprocess.run(
            command, input=stdin if stdin is not None else b"", env=self.environment,
            cwd=self.home, capture_output=True, timeout=60, check=False,
        )  # fmt: skip
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(), done.stderr.decode()
        )

    def version(self) -> str:
        """What the installed program says."""
        done = subprocess.run(
            [self.exe, "--version"], env=self.environment, capture_output=True, text=True,
            timeout=60, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def snapshot(self) -> dict[str, tuple[int, str]]:
        """Everything in the room but for the tools: mode, and content or a link's goal."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path.is_relative_to(self.tools) or path.is_relative_to(self.fakes):
                continue
            if path.is_symlink():
                content = f"-> {path.readlink()}"
            else:
                content = path.read_bytes().hex() if path.is_file() else "directory"
            found[str(path.relative_to(self.root))] = (path.lstat().st_mode, content)
        return found


def shells() -> dict[str, tuple[str, ...]]:
    """Those that should run the script, by name."""
    return {"sh": ("sh",), "dash": ("dash",), "bash": ("bash",), "zsh": ("zsh",),
            "busybox": ("busybox", "sh")}  # fmt: skip


def is_root() -> bool:
    return os.geteuid() == 0
