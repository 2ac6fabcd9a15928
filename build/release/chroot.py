"""Old and bare Linux roots on this machine: made by debootstrap, entered by unshare.

What is mounted in a room is mounted in a namespace of its own, which ends with the command: even
a kill -9 leaves no mount on this machine. It must never remove a directory that holds a mount.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MIRROR = "http://deb.debian.org/debian"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
BINFMT = Path("/proc/sys/fs/binfmt_misc")
DEBIAN = {"x64": "amd64", "arm64": "arm64"}
"""Debian's names for our architectures."""
GNU = {"x64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOUR = 3600.0


class RoomError(Exception):
    """What cannot be done here, and what would help."""


@dataclass(frozen=True, slots=True)
class Room:
    """A root directory and the architecture of what is in it."""

    root: Path
    arch: str

    def command(self, *command: str, user: int = 0, cwd: str = "/") -> list[str]:
        """`command` in this room, as a host's command line; /proc is mounted for it alone.

        Where it is run by itself, it also has process numbers of its own: see `run`.
        """
        who = ["--setuid", str(user), "--setgid", str(user)] if user else []
        return [
            "unshare", "--mount", "--propagation", "private", "--mount-proc", *who,
            "--root", str(self.root), "--wd", cwd, *command,
        ]  # fmt: skip

    def run(
        self, *command: str, cwd: str = "/", env: Mapping[str, str] | None = None,
        timeout: float = _HOUR, log: Path | None = None,
    ) -> str:  # fmt: skip
        """stdout of one command, or nothing with `log`, which then has all that it said.

        No process of it outlives the call. Raises RoomError, with the end of what it said.
        """
        contained = ["unshare", "--pid", "--fork", "--kill-child", *self.command(*command, cwd=cwd)]
        variables = {"PATH": _PATH, "HOME": "/root", "LC_ALL": "C.UTF-8", **(env or {})}
        return said(contained, env=variables, timeout=timeout, log=log)


def said(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = _HOUR,
    log: Path | None = None, cwd: Path | None = None,
) -> str:  # fmt: skip
    """stdout of a command; stderr, or both with `log`, are told when it fails. Raises RoomError."""
    try:
        if log is None:
            done = subprocess.run(
                command, env=env, timeout=timeout, cwd=cwd, check=True, capture_output=True,
                text=True, stdin=subprocess.DEVNULL,
            )  # fmt: skip
            return done.stdout
        with log.open("a", encoding="utf-8") as file:
            subprocess.run(
                command, env=env, timeout=timeout, cwd=cwd, check=True, stdout=file,
                stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise RoomError(f"{' '.join(command)} took longer than {timeout:.0f} s.") from None
    except subprocess.CalledProcessError as failed:
        text = log.read_text(encoding="utf-8") if log else f"{failed.stdout}{failed.stderr}"
        where = f" (all of it: {log})" if log else ""
        raise RoomError(
            f"{' '.join(command)} exited with {failed.returncode}{where}:\n{text[-1500:]}"
        ) from failed
    return ""


def missing(arch: str) -> list[str]:
    """What this machine lacks for rooms of `arch`, each with the way out."""
    if sys.platform != "linux":
        return ["Rooms are made and entered on Linux only."]
    lacks = []
    if os.geteuid() != 0:
        lacks.append("Rooms need root: run as root, or with sudo.")
    tools = {"debootstrap": "debootstrap", "unshare": "util-linux", "ip": "iproute2"}
    packages = [package for tool, package in tools.items() if shutil.which(tool) is None]
    if not KEYRING.is_file():
        packages.append("debian-archive-keyring")
    if foreign(arch) and not (BINFMT / "qemu-aarch64").is_file():
        packages += ["qemu-user-static", "binfmt-support"]
        lacks.append(
            f"{arch} programs need qemu, registered with the kernel: mount -t binfmt_misc "
            f"binfmt_misc {BINFMT} (where nothing is mounted there); "
            "update-binfmts --enable qemu-aarch64"
        )
    if packages:
        lacks.insert(0, f"Install first: apt-get install {' '.join(packages)}")
    return lacks


def foreign(arch: str) -> bool:
    return arch == "arm64" and os.uname().machine != "aarch64"


def make(root: Path, arch: str, suite: str, packages: Sequence[str] = ()) -> Room:
    """The room at `root`, made if it is not there: minbase of `suite` and `packages`.

    debootstrap holds what it downloads to Debian's signing keys. Raises RoomError.
    """
    if not root.is_dir():
        part = root.with_name(root.name + ".part")
        remove(part)
        part.parent.mkdir(parents=True, exist_ok=True)
        command = [
            "unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
            "debootstrap", f"--arch={DEBIAN[arch]}", "--variant=minbase", f"--keyring={KEYRING}",
        ]  # fmt: skip
        command += [f"--include={','.join(packages)}"] if packages else []
        said([*command, suite, str(part), MIRROR], log=fresh(root.with_name(root.name + ".log")))
        part.rename(root)
    return Room(root, arch)


def fresh(log: Path) -> Path:
    """`log`, empty."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("", encoding="utf-8")
    return log


def remove(root: Path) -> None:
    """Remove a room. Raises RoomError where something is mounted in it: it would go as well."""
    inside = mounts(root, Path("/proc/self/mountinfo").read_text(encoding="utf-8"))
    if inside:
        raise RoomError(
            f"{root} is not removed: mounted in it are {', '.join(inside)}. Unmount them first."
        )
    if root.exists():
        shutil.rmtree(root)


def mounts(root: Path, mountinfo: str) -> list[str]:
    """Mount points at and below `root`, by proc_pid_mountinfo(5)."""
    points = [Path(line.split(" ")[4].replace("\\040", " ")) for line in mountinfo.splitlines()]
    return [str(point) for point in points if point.is_relative_to(root.resolve())]
