"""Run one executable in a bare room, and compare its vectors with the source's.

    unshare --net … python -m release.room_checks --root DIR --arch x64 --exe FILE --vectors FILE

It is run by release.rooms in a network of its own, which has nothing but loopback: what the
program does here, it does without a network. It must never make a room, or change one beside
the directory of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import smoke
from release.chroot import Room
from smoke import TEXTS, Smoke, SmokeError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PLACE = "srv/smoke"
# A space and letters beyond ASCII: a person's own directory has them.
_INSTALLED = f"/{_PLACE}/a plače"
_HOME = f"/{_PLACE}/home"
# Of numbers that are near 0.05: float32's own step there is 4e-9, and a sum of hundreds is made
# in another order on another processor. What a wrong kernel gives is orders above.
_TOLERANCE = 1e-6


class RoomSmoke(Smoke):
    """An executable that was copied into a room, where `user` runs it."""

    def __init__(self, exe: Path, room: Room, user: int, expected: list[list[float]]) -> None:
        self.room, self.user, self.expected = room, user, expected
        shutil.rmtree(room.root / _PLACE, ignore_errors=True)
        self.home = room.root / _HOME.lstrip("/")
        self.home.mkdir(parents=True)
        place = room.root / _INSTALLED.lstrip("/")
        if exe.parent.name == "onedir":
            shutil.copytree(exe.parent, place, symlinks=True)
        else:
            place.mkdir()
            shutil.copy2(exe, place)
        self.exe = place / exe.name
        os.chown(self.home, user, user)
        self.environment = {"HOME": _HOME, "TMPDIR": _HOME, "PATH": "/nonexistent"}
        # By its path: PATH, the program's too, leads nowhere.
        self.unshare = shutil.which("unshare") or "unshare"

    def command(self, *arguments: str) -> list[str]:
        program = f"{_INSTALLED}/{self.exe.name}"
        command = self.room.command(program, *arguments, user=self.user, cwd=_HOME)
        return [self.unshare, *command[1:]]


def no_python(smoke: RoomSmoke) -> str:
    found = [
        str(path)
        for directory in ("bin", "usr/bin", "usr/local/bin", "opt")
        for path in (smoke.room.root / directory).glob("*python*")
    ]
    if found:
        raise SmokeError(f"this room is not bare: {', '.join(found)}")
    return "none in the room"


def no_network(smoke: RoomSmoke) -> str:
    lines = Path("/proc/net/dev").read_text(encoding="utf-8").splitlines()[2:]
    interfaces = [line.partition(":")[0].strip() for line in lines]
    if interfaces != ["lo"]:
        raise SmokeError(f"interfaces: {', '.join(interfaces) or 'none'}; only lo was expected")
    return "loopback alone"


def vectors(smoke: RoomSmoke) -> str:
    """The same numbers as the source's, on the machine that made the bundle."""
    got = [json.loads(line)["embedding"] for line in smoke.output("embed", *TEXTS).splitlines()]
    worst = farthest(got, smoke.expected)
    if worst > _TOLERANCE:
        raise SmokeError(f"{worst:.1e} from the source's, more than {_TOLERANCE:.0e}")
    return f"{worst:.1e} at most from the source's"


def farthest(some: list[list[float]], others: list[list[float]]) -> float:
    """The largest absolute difference. Raises SmokeError for other shapes."""
    if [len(v) for v in some] != [len(v) for v in others] or not some:
        raise SmokeError(f"{len(some)} vectors, not {len(others)} of the same dimensions")
    return max(
        abs(a - b) for v, w in zip(some, others, strict=True) for a, b in zip(v, w, strict=True)
    )


CHECKS: tuple[Callable[[RoomSmoke], str], ...] = (
    no_python, no_network, smoke.version, smoke.selftest, vectors, smoke.embed, smoke.token_ids,
    smoke.sidecar, smoke.sigterm, smoke.host_death, smoke.outer_death, smoke.litter,
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Try an executable in a room.")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--arch", required=True)
    parser.add_argument("--exe", type=Path, required=True)
    parser.add_argument("--vectors", type=Path, required=True, help="of `embed`, JSON lines")
    parser.add_argument("--user", type=int, default=0, metavar="UID")
    args = parser.parse_args(arguments)
    lines = args.vectors.read_text(encoding="utf-8").splitlines()
    expected = [json.loads(line)["embedding"] for line in lines]
    room = Room(args.root.resolve(), args.arch)
    return 0 if smoke.passes(RoomSmoke(args.exe, room, args.user, expected), CHECKS) else 1


if __name__ == "__main__":
    sys.exit(main())
