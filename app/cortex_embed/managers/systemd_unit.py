"""The systemd unit of a job, as text: systemd.service(5), systemd.exec(5), systemd.syntax(7).

A unit of the system gets all the hardening that the program runs under; a user's unit only what
needs no mount namespace, which user managers may not make everywhere (they need unprivileged
user namespaces, which Ubuntu restricts; before systemd 254 they ignored it in silence).
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from cortex_embed import __version__
from cortex_embed.config import LOOPBACK
from cortex_embed.errors import UsageError
from cortex_embed.managers.manager import DOCUMENTATION, MARK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cortex_embed.managers.job import Job

CREDENTIAL = "api-keys"
# After the grace period answers are cut, and the process ends.
_AFTER_GRACE = 15
# Wrong flags, model files that do not load, files that cannot be written: the same next time.
# A port in use (4), a full disk (9) and a download (10) may be better in a while.
_NOT_AGAIN = "2 3 6"
_PRIVILEGED_PORTS = 1024
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def unit(job: Job) -> str:
    """The unit file. Raises UsageError for a program that systemd cannot start."""
    parts = [f"# {MARK} ({__version__}).", "# Install again to change it: an edit would be lost."]
    sections = (("Unit", _unit), ("Service", _service), ("Install", _install))
    for name, lines in sections:
        parts += ["", f"[{name}]", *lines(job)]
    return "\n".join(parts) + "\n"


def _unit(job: Job) -> Iterator[str]:
    yield f"Description=cortex-embed: text embeddings on {specifiers(job.address)}"
    yield f"Documentation={DOCUMENTATION}"
    if job.system:  # a user's manager does not know it
        yield "Wants=network-online.target"
        yield "After=network-online.target"


def _install(job: Job) -> Iterator[str]:
    yield f"WantedBy={'multi-user' if job.system else 'default'}.target"


def _service(job: Job) -> Iterator[str]:
    yield "Type=notify"
    yield "# Of the one-file program the inner of two processes serves, and tells of it."
    yield "NotifyAccess=all"
    yield f"ExecStart={_command(job)}"
    yield "Restart=on-failure"
    yield "RestartSec=5"
    yield f"RestartPreventExitStatus={_NOT_AGAIN}"
    yield "# A first start may download the model; a download that stalls gives up by itself."
    yield "TimeoutStartSec=infinity"
    yield f"TimeoutStopSec={math.ceil(job.settings.grace_period) + _AFTER_GRACE}"
    yield "# The outer process hands a signal on. Were both sent one, the inner would have two, and"
    yield "# the second means: at once."
    yield "KillMode=mixed"
    yield from _hardening()
    if job.system:
        yield from _system(job)


def _hardening() -> Iterator[str]:
    """What needs no privilege and no namespace. Not MemoryDenyWriteExecute=: the program runs under
    it today, but no library in it promises to."""
    yield "UMask=0077"
    yield "NoNewPrivileges=yes"
    yield "LockPersonality=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "RestrictNamespaces=yes"
    yield "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"
    yield "SystemCallArchitectures=native"
    yield "SystemCallFilter=@system-service"
    yield "SystemCallFilter=~@privileged"
    yield "SystemCallErrorNumber=EPERM"


def _system(job: Job) -> Iterator[str]:
    """A user that exists only while it runs, and directories that are all it may write."""
    yield "DynamicUser=yes"
    yield "StateDirectory=cortex-embed"
    yield "CacheDirectory=cortex-embed"
    yield "# Models under %S, libraries under %C; /tmp may be noexec, and %C is not."
    yield "Environment=XDG_DATA_HOME=%S XDG_CACHE_HOME=%C TMPDIR=%C/cortex-embed"
    if job.settings.api_key_file is not None:
        yield "# The file stays root's own; systemd hands a copy to this service alone."
        yield f"LoadCredential={CREDENTIAL}:{specifiers(str(job.settings.api_key_file))}"
    yield "ProtectSystem=strict"
    yield "ProtectHome=yes"
    yield "PrivateTmp=yes"
    yield "PrivateDevices=yes"
    yield "PrivateMounts=yes"
    for name in ("Clock", "ControlGroups", "Hostname", "KernelLogs", "KernelModules"):
        yield f"Protect{name}=yes"
    yield "ProtectKernelTunables=yes"
    yield "ProtectProc=invisible"
    yield "RemoveIPC=yes"
    if 0 < job.settings.port < _PRIVILEGED_PORTS:
        yield "CapabilityBoundingSet=CAP_NET_BIND_SERVICE"
        yield "AmbientCapabilities=CAP_NET_BIND_SERVICE"
    else:
        yield "CapabilityBoundingSet="
        yield "PrivateUsers=yes"
    if job.settings.offline and job.settings.host in LOOPBACK:
        yield "# Offline and on loopback: then let the kernel hold it to that."
        yield "IPAddressDeny=any"
        yield "IPAddressAllow=localhost"


def _command(job: Job) -> str:
    path, *arguments = job.words
    if not path.isprintable() or set(path) & set("\"'\\"):
        raise UsageError(
            f"{path!r}: systemd executes no path with quotes, backslashes or control characters. "
            "Move the program."
        )
    if job.system and job.settings.api_key_file is not None:
        arguments = [word for word in arguments if not word.startswith("--api-key-file=")]
    words = [quoted(path, variables=False), *map(quoted, arguments)]
    if job.system and job.settings.api_key_file is not None:
        words.append(f"--api-key-file=${{CREDENTIALS_DIRECTORY}}/{CREDENTIAL}")
    return " ".join(words)


def specifiers(text: str) -> str:
    """`text` as it stands in a unit, where % begins a specifier."""
    return text.replace("%", "%%")


def quoted(word: str, *, variables: bool = True) -> str:
    """One word of a command line. `variables`: a $ would begin one here (not in the program)."""
    word = specifiers(word)
    if variables:
        word = word.replace("$", "$$")
    if _PLAIN.fullmatch(word):
        return word
    return '"' + "".join(_ESCAPES.get(character, character) for character in word) + '"'
