"""launchd on macOS: an agent of this user, launchd.plist(5), loaded into the login's session.

It must never touch another agent than its own label.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed import __version__
from cortex_embed.errors import InstanceError, OutputError
from cortex_embed.managers.manager import MARK, read, remove, tool, write

if TYPE_CHECKING:
    from cortex_embed.managers.job import Job

LABEL = "io.github.cortex-embed"
_AFTER_GRACE = 15
# `bootout` returns before the agent is gone, and `bootstrap` fails as long as it is there.
_PATIENCE = 60.0
_TICK = 0.5


class Launchd:
    """This user's launchd, in the session of who is logged in at the screen."""

    name = "launchd"

    def __init__(self, home: Path | None = None) -> None:
        home = home or Path.home()
        self._path = home / "Library" / "LaunchAgents" / f"{LABEL}.plist"
        self._log = home / "Library" / "Logs" / "cortex-embed" / "cortex-embed.log"

    @property
    def place(self) -> str:
        return str(self._path)

    def definition(self, job: Job) -> bytes:
        import plistlib

        log = str(self._log)
        keys = {
            "Label": LABEL,
            "ProgramArguments": list(job.words),
            "RunAtLoad": True,
            # Unless it ended in good order. launchd tells no exit codes apart, so that a setting
            # that is wrong is tried again too, each ThrottleInterval.
            "KeepAlive": {"SuccessfulExit": False},
            "ThrottleInterval": 30,
            "ExitTimeOut": math.ceil(job.settings.grace_period) + _AFTER_GRACE,
            # Or macOS would slow down what an app is waiting for.
            "ProcessType": "Interactive",
            "StandardOutPath": log,
            "StandardErrorPath": log,
            "Umask": 0o077,
        }
        text = plistlib.dumps(keys, sort_keys=False)
        # plistlib writes no comments, and launchd warns of keys that it does not know.
        return text.replace(b"<plist ", f"<!-- {MARK} ({__version__}). -->\n<plist ".encode(), 1)

    def check(self) -> None:
        code, said = tool("launchctl", "print", _domain())
        if code:
            raise InstanceError(
                f"There is no login session at the screen for user {os.getuid()} ({said}). Log in "
                "there (over ssh alone there is none), and not as root."
            )

    def installed(self) -> bytes | None:
        return read(self._path)

    def install(self, definition: bytes) -> None:
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
        except OSError as why:
            raise OutputError(f"{self._log.parent} cannot be made: {why.strerror}.") from None
        write(self._path, definition)
        self._unload()
        tool("launchctl", "enable", f"{_domain()}/{LABEL}")  # someone may have disabled it
        code, said = tool("launchctl", "bootstrap", _domain(), str(self._path))
        if code:
            raise InstanceError(f"launchd does not take {self._path} (code {code}): {said}")

    def remove(self) -> None:
        self._unload()
        remove(self._path)

    def state(self) -> tuple[bool, str]:
        code, said = tool("launchctl", "print", f"{_domain()}/{LABEL}")
        found = [line.strip() for line in said.splitlines()]
        words = next((line[8:] for line in found if line.startswith("state = ")), "not loaded")
        return code == 0 and words == "running", words

    def hints(self) -> dict[str, str]:
        return {
            "state": f"launchctl print {_domain()}/{LABEL}",
            "logs": f"tail -f '{self._log}'",
            "stop": f"launchctl bootout {_domain()}/{LABEL}",
        }

    def _unload(self) -> None:
        """Stop it and wait until it is gone. Raises InstanceError."""
        tool("launchctl", "bootout", f"{_domain()}/{LABEL}")
        deadline = time.monotonic() + _PATIENCE
        while tool("launchctl", "print", f"{_domain()}/{LABEL}")[0] == 0:
            if time.monotonic() >= deadline:
                raise InstanceError(f"{LABEL} has not ended after {_PATIENCE:g} s. Try again.")
            time.sleep(_TICK)


def _domain() -> str:
    return f"gui/{os.getuid()}"
