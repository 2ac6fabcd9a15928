"""systemd on Linux: a unit of this user's manager, or of the system's.

The unit's text is `systemd_unit`'s. It must never touch another unit than `cortex-embed.service`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cortex_embed.errors import InstanceError
from cortex_embed.managers.manager import must, read, remove, tool, write
from cortex_embed.managers.systemd_unit import unit

if TYPE_CHECKING:
    from cortex_embed.managers.job import Job

UNIT = "cortex-embed.service"
_LINGER = Path("/var/lib/systemd/linger")
_RUNS = Path("/run/systemd/system")  # sd_booted(3)
_LINES_SHOWN = "15"
# systemd.exec(5): from here on an exit code is systemd's own, of a process it could not set up.
_OF_SYSTEMD = 200
_NOT_HERE = (
    "It does not run here (a container?): let what starts this machine's programs start "
    "`cortex-embed serve`."
)
_NO_SESSION = (
    "Log in as this user, not by su or sudo; over ssh, `sudo loginctl enable-linger USER` first. "
    "Or use --system, as root."
)


class Systemd:
    """This user's manager, or with `system` the machine's."""

    name = "systemd"

    def __init__(self, *, system: bool = False) -> None:
        import platformdirs

        self._system = system
        self._scope = () if system else ("--user",)
        # As systemd.unit(5): XDG_CONFIG_HOME, or ~/.config.
        own = Path(platformdirs.user_config_dir()) / "systemd" / "user"
        self._path = (Path("/etc/systemd/system") if system else own) / UNIT

    @property
    def place(self) -> str:
        return str(self._path)

    def definition(self, job: Job) -> bytes:
        return unit(job).encode()

    def check(self) -> None:
        if self._system and os.geteuid() != 0:
            raise InstanceError(
                "--system needs root: run it with sudo, or leave --system out for a service of "
                "your own."
            )
        code, said = tool("systemctl", *self._scope, "show-environment")
        if not code:
            return
        way = _NOT_HERE if not _RUNS.exists() else _NO_SESSION
        raise InstanceError(f"systemd cannot be reached ({said}). {way}")

    def installed(self) -> bytes | None:
        return read(self._path)

    def install(self, definition: bytes) -> None:
        write(self._path, definition)
        self._call("daemon-reload")
        self._call("enable", "--quiet", UNIT)
        # Of Type=notify: it comes back once requests are served.
        code, said = tool("systemctl", *self._scope, "restart", UNIT)
        if code:
            raise self._not_started(said)

    def remove(self) -> None:
        # A unit that systemd has not read yet cannot be stopped, and need not be.
        tool("systemctl", *self._scope, "disable", "--now", "--quiet", UNIT)
        remove(self._path)
        self._call("daemon-reload")
        tool("systemctl", *self._scope, "reset-failed", UNIT)

    def state(self) -> tuple[bool, str]:
        facts = self._facts("ActiveState", "SubState", "StatusText")
        words = f"{facts.get('ActiveState', 'unknown')} ({facts.get('SubState', 'unknown')})"
        status = facts.get("StatusText", "")
        return facts.get("ActiveState") == "active", f"{words}: {status}" if status else words

    def hints(self) -> dict[str, str]:
        scope = " ".join(["systemctl", *self._scope])
        hints = {
            "state": f"{scope} status cortex-embed",
            "logs": f"journalctl {' '.join(self._scope)} -u cortex-embed".replace("  ", " "),
            "stop": f"{scope} stop cortex-embed",
        }
        if not self._system and not (_LINGER / _user()).exists():
            hints["keep it running when you are logged out"] = "loginctl enable-linger"
        return hints

    def _call(self, *words: str) -> str:
        return must("systemctl", *self._scope, *words)

    def _facts(self, *names: str) -> dict[str, str]:
        said = self._call("show", f"--property={','.join(names)}", UNIT)
        return dict(line.split("=", 1) for line in said.splitlines() if "=" in line)

    def _not_started(self, said: str) -> InstanceError:
        """Why, in the server's own last words and with its own exit code, as far as is known."""
        facts = self._facts("InvocationID", "ExecMainStatus")
        run = facts.get("InvocationID", "")
        # Its own lines, and systemd's of it: what cannot be executed says nothing itself.
        field = "INVOCATION_ID" if self._system else "USER_INVOCATION_ID"
        lines = (f"_SYSTEMD_INVOCATION_ID={run}", "+", f"{field}={run}")
        form = ("--lines", _LINES_SHOWN, "--output", "cat", "--no-pager", "--quiet")
        code, words = tool("journalctl", *self._scope, *lines, *form)
        if code or not words:  # not everybody may read the journal
            words = said
        status = int(facts.get("ExecMainStatus") or 0)
        shown = "".join(f"\n  {line}" for line in words.splitlines())
        return InstanceError(
            f"The service did not start. Its last words:{shown}",
            exit_code=status if 0 < status < _OF_SYSTEMD else 1,
        )


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name
